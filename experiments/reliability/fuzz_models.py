"""Models, for `fuzz`: weights, configs, tokenizers, of all families."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import tokenizers
from flax import nnx

from experiments.models import own_head, predictor
from experiments.reliability import mutations
from experiments.reliability.reader import Path, Reader
from gmixout_jax import clip

_BYTES, _JSON = mutations.of_bytes, mutations.of_json

_TOWER: dict[str, Any] = dict(width=64, depth=1, heads=1, mlp_width=8)
_VIT = clip.VisionConfig.vit(
  image_size=16, patch_size=8, eps=1e-12, num_classes=2, **_TOWER
)
_CLIP = clip.CLIPConfig(
  vision=clip.VisionConfig(image_size=16, patch_size=8, **_TOWER),
  text=clip.TextConfig(
    vocab_size=8, context_length=6, bos_token_id=0, eos_token_id=7, **_TOWER
  ),
  projection_dim=4,
)
_SIGLIP = clip.CLIPConfig(
  vision=clip.VisionConfig(
    image_size=16, patch_size=8, pre_norm=False, patch_bias=True,
    class_token=False, pool="attention", activation="gelu_tanh", eps=1e-6,
    **_TOWER,
  ),
  text=clip.TextConfig(
    vocab_size=8, context_length=6, bos_token_id=0, eos_token_id=7,
    causal=False, pool="last", projection_bias=True, activation="gelu_tanh",
    eps=1e-6, **_TOWER,
  ),
  projection_dim=64, logit_bias_init=-10.0, vision_projection=False,
)  # fmt: skip
_DINO = clip.VisionConfig.vit(
  image_size=16, patch_size=8, num_classes=0, layer_scale=1.0,
  **_TOWER | {"mlp_width": 64},
)  # fmt: skip
_SAID = clip.Preprocessing(clip.HALF, clip.HALF, 16, "crop", 1.25, "bicubic")


def _filled[M: nnx.Module](make: Callable[[], M]) -> M:
  rng = np.random.default_rng(0)
  graphdef, state = nnx.split(nnx.eval_shape(make))
  draw = lambda leaf: jnp.asarray(
    rng.standard_normal(leaf.shape).astype(np.float32)
  )
  return nnx.merge(graphdef, jax.tree.map(draw, state))


def _vit(form: Any, name: str = ".") -> Callable[[Path], None]:
  def make(folder: Path) -> None:
    clip.save(
      _filled(lambda: clip.ViT(_VIT, rngs=nnx.Rngs(0))),
      folder / name,
      form=form,
      preprocessing=_SAID,
      class_names=["a", "b"],
    )

  return make


def make_clip(folder: Path) -> None:
  """A CLIP with its tokenizer, a head and all it says."""
  model = _filled(lambda: clip.CLIP(_CLIP, rngs=nnx.Rngs(0)))
  clip.save(model, folder, preprocessing=_SAID)
  words = {"<s>": 0, "a": 1, "photo": 2, "of": 3, "cat": 4, "dog": 5, "x": 6}
  made = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(words | {"</s>": 7}, "x")
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 7)]
  )
  made.save(str(folder / "tokenizer.json"))
  (folder / "tokenizer_config.json").write_text('{"pad_token": "x"}')
  head = own_head.Head(jnp.ones((4, 2)), jnp.zeros(2))
  own_head.save(folder, head, ["cat", "dog"])


def _shards(folder: Path) -> None:
  make_clip(folder)
  whole = folder / "model.safetensors"
  names = sorted(safetensors.numpy.load_file(whole))
  whole.rename(folder / "model-1.safetensors")
  index = {"weight_map": dict.fromkeys(names, "model-1.safetensors")}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _finite(model: nnx.Module) -> bool:
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in leaves)


def _is_prepared(found: clip.Preprocessing | None) -> bool:
  if found is None:
    return True
  numbers = np.array([*found.mean, *found.std])
  return bool(np.isfinite(numbers).all()) and min(found.std) > 0


def _predictor(folder: Path) -> predictor.Predictor:
  return predictor.load(folder, classes=None, mean=clip.HALF, std=clip.HALF)


def _is_predictor(found: predictor.Predictor) -> bool:
  outputs = found.model.head.out_features
  named = found.class_names is None or len(found.class_names) == outputs
  return named and _finite(found.model) and found.view.size <= 2**14


def _tokens(folder: Path) -> Any:
  return clip.load_tokenizer(folder)(["a photo of a cat", ""])


def _is_tokens(ids: Any) -> bool:
  return ids.dtype == np.int32 and ids.shape[0] == 2 and ids.min() >= 0


def _saved(
  config: clip.VisionConfig | clip.CLIPConfig,
) -> Callable[[Path], None]:
  """Writes a model in Hugging Face's form."""

  def make(folder: Path) -> None:
    model = clip.ViT if isinstance(config, clip.VisionConfig) else clip.CLIP
    filled = _filled(lambda: model(config, rngs=nnx.Rngs(0)))  # pyright: ignore
    clip.save(filled, folder, form="huggingface")

  return make


def _open_clip(folder: Path) -> None:
  """What open_clip writes; there is no other way to have it."""
  rng = np.random.default_rng(0)
  tensors = {"logit_scale": np.array(2.6)}

  def add(name: str, *shape: int) -> None:
    tensors[name] = rng.standard_normal(shape)

  def norm(name: str, width: int) -> None:
    add(f"{name}.weight", width)
    add(f"{name}.bias", width)

  def linear(name: str, outputs: int, inputs: int) -> None:
    add(f"{name}.weight", outputs, inputs)
    add(f"{name}.bias", outputs)

  for tower, width in (("visual.", 64), ("", 16)):
    block = f"{tower}transformer.resblocks.0"
    norm(f"{block}.ln_1", width)
    norm(f"{block}.ln_2", width)
    add(f"{block}.attn.in_proj_weight", 3 * width, width)
    add(f"{block}.attn.in_proj_bias", 3 * width)
    linear(f"{block}.attn.out_proj", width, width)
    linear(f"{block}.mlp.c_fc", 4 * width, width)
    linear(f"{block}.mlp.c_proj", width, 4 * width)
  for name in ("visual.ln_pre", "visual.ln_post"):
    norm(name, 64)
  norm("ln_final", 16)
  add("visual.conv1.weight", 64, 3, 8, 8)
  add("visual.class_embedding", 64)
  add("visual.positional_embedding", 5, 64)
  add("visual.proj", 64, 4)
  add("token_embedding.weight", 8, 16)
  add("positional_embedding", 6, 16)
  add("text_projection", 16, 4)
  safetensors.numpy.save_file(
    {name: array.astype(np.float32) for name, array in tensors.items()},
    folder / "open_clip_model.safetensors",
  )
  config = {
    "model_cfg": {
      "embed_dim": 4,
      "quick_gelu": False,
      "vision_cfg": {
        "layers": 1, "width": 64, "head_width": 16, "patch_size": 8,
        "image_size": 16,
      },
      "text_cfg": {
        "context_length": 6, "vocab_size": 8, "width": 16, "heads": 2,
        "layers": 1,
      },
    },
    "preprocess_cfg": {
      "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.3, 0.2],
      "interpolation": "bicubic", "resize_mode": "shortest",
    },
  }  # fmt: skip
  (folder / "open_clip_config.json").write_text(json.dumps(config))


def _with_pixels(folder: Path) -> Any:
  """The model, and how its images are prepared, which its config says too."""
  return clip.load(folder), clip.load_preprocessing(folder)


READERS: tuple[Reader, ...] = (
  Reader(
    "ViT in a file", _vit(None, "x.safetensors"), "x.safetensors", _BYTES,
    lambda folder: clip.load(folder / "x.safetensors"), _finite,
  ),
  Reader("timm, config.json", _vit("timm"), "config.json", _JSON, clip.load,
         _finite),
  Reader("Hugging Face ViT, config.json", _vit("huggingface"), "config.json",
         _JSON, clip.load, _finite),
  Reader("CLIP, config.json", make_clip, "config.json", _JSON, clip.load,
         _finite),
  Reader("SigLIP, config.json", _saved(_SIGLIP), "config.json", _JSON,
         clip.load, _finite),
  Reader("DINOv2, config.json", _saved(_DINO), "config.json", _JSON,
         clip.load, _finite),
  Reader("open_clip_config.json", _open_clip, "open_clip_config.json", _JSON,
         _with_pixels,
         lambda found: _finite(found[0]) and _is_prepared(found[1])),
  Reader("open_clip, weights", _open_clip, "*.safetensors", _BYTES, clip.load,
         _finite),
  Reader("CLIP, weights", make_clip, "model.safetensors", _BYTES, clip.load,
         _finite),
  Reader("CLIP, index of shards", _shards, "*.index.json", _JSON, clip.load,
         _finite),
  Reader("preprocessor_config.json", make_clip, "preprocessor_config.json",
         _JSON, clip.load_preprocessing, _is_prepared),
  Reader("exported head", make_clip, "head.safetensors", _BYTES, _predictor,
         _is_predictor),
  Reader("tokenizer.json", make_clip, "tokenizer.json", _JSON, _tokens,
         _is_tokens),
  Reader("tokenizer_config.json", make_clip, "tokenizer_config.json", _JSON,
         _tokens, _is_tokens),
)  # fmt: skip
