"""CLIP folders of open_clip: open_clip_config.json and its weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx

from gmixout_jax.clip import names, weights
from gmixout_jax.clip.config import (
  LEGACY_EOS,
  CLIPConfig,
  TextConfig,
  VisionConfig,
  one_side,
)
from gmixout_jax.clip.model import CLIP

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"

# Fields that steer training, or how a model is run, and not what it computes.
_FREE = frozenset(
  {
    *("patch_dropout", "output_tokens", "pos_embed_type", "drop_path"),
    *("timm_model_pretrained", "timm_proj", "timm_drop", "timm_drop_path"),
    *("hf_tokenizer_name", "tokenizer_kwargs", "hf_model_pretrained"),
    *("pad_id", "output_dim", "tower_type"),
  }
)
_VISION: dict[str, Any] = {
  "layers": 12,
  "width": 768,
  "head_width": 64,
  "mlp_ratio": 4.0,
  "patch_size": 16,
  "image_size": 224,
  "ls_init_value": None,
  "pool_type": "tok",
  "final_ln_after_pool": False,
  "no_ln_pre": False,
}
_TEXT: dict[str, Any] = {
  "context_length": 77,
  "vocab_size": 49408,
  "width": 512,
  "heads": 8,
  "layers": 12,
  "mlp_ratio": 4.0,
  "ls_init_value": None,
  "pool_type": "argmax",
  "eos_id": 2,
  "no_causal_mask": False,
}
_POOLS = {"tok": "class", "avg": "mean"}
_TEXT_POOLS = {"argmax": "end", "eos": "end", "last": "last"}


def parse(raw: Mapping[str, Any]) -> CLIPConfig:
  """Reads open_clip_config.json; what it leaves out has open_clip's default.

  Args:
    raw: The parsed JSON.

  Raises:
    ValueError: A value is not allowed, or something is not supported; it is
      named and quoted.
  """
  model = _object(raw, "model_cfg")
  usual: dict[str, Any] = dict(
    activation="quick_gelu" if model.get("quick_gelu") else "gelu",
    eps=1e-5,
  )
  vision = _fields(model, "vision_cfg", _VISION)
  text = _fields(model, "text_cfg", _TEXT)
  heads, rest = divmod(vision["width"], vision["head_width"])
  if rest:
    raise ValueError(
      "vision_cfg: width must be a multiple of head_width, got"
      f" {vision['width']} and {vision['head_width']}."
    )
  ids: dict[str, Any] = {"eos_token_id": LEGACY_EOS}
  if text["pool_type"] == "eos":
    ids = {"eos_token_id": text["eos_id"]}
  return CLIPConfig(
    vision=VisionConfig(
      width=vision["width"],
      depth=vision["layers"],
      heads=heads,
      mlp_width=int(vision["width"] * vision["mlp_ratio"]),
      image_size=one_side("image_size", vision["image_size"]),
      patch_size=one_side("patch_size", vision["patch_size"]),
      layer_scale=vision["ls_init_value"],
      pre_norm=not vision["no_ln_pre"],
      pool=_one_of(vision, "vision_cfg", _POOLS),
      norm_pooled=vision["final_ln_after_pool"],
      **usual,
    ),
    text=TextConfig(
      width=text["width"],
      depth=text["layers"],
      heads=text["heads"],
      mlp_width=int(text["width"] * text["mlp_ratio"]),
      vocab_size=text["vocab_size"],
      context_length=text["context_length"],
      layer_scale=text["ls_init_value"],
      causal=not text["no_causal_mask"],
      pool=_one_of(text, "text_cfg", _TEXT_POOLS),
      bos_token_id=None,
      pad_token_id=model.get("text_cfg", {}).get("pad_id", 0),
      **ids,
      **usual,
    ),
    projection_dim=model.get("embed_dim", 512),
    logit_bias_init=model.get("init_logit_bias"),
  )


def load(
  tensors: weights.Files, config: CLIPConfig, *, image_size: int | None
) -> CLIP:
  """The model of a config, from open_clip's tensors.

  Args:
    tensors: Of the folder.
    config: From `parse`.
    image_size: See `clip.load`.

  Raises:
    CheckpointError: They do not fit.
  """
  naming = names.OPEN_CLIP
  if "text.token_embedding.weight" in tensors.shapes:  # its CustomTextCLIP
    naming = dataclasses.replace(
      naming, rules=tuple(rule for rule in naming.rules if rule[0] != r"^text/")
    )
  elif "token_embedding.weight" not in tensors.shapes:
    weights.refuse_prefix(tensors, "token_embedding.weight")
  if image_size is not None:
    vision = dataclasses.replace(config.vision, image_size=image_size)
    config = dataclasses.replace(config, vision=vision)
    weights.interpolate(
      tensors,
      "visual.positional_embedding",
      grid=vision.grid,
      prefix=vision.placed,
    )
  abstract = weights.shaped(
    lambda: CLIP(config, rngs=nnx.Rngs(0)),
    tensors,
    *(config.vision.depth, config.text.depth),
  )
  return weights.fill(abstract, tensors, naming, ignore=["attn_mask"])


def _object(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  found = raw.get(name)
  if not isinstance(found, Mapping):
    raise ValueError(f"{name} must be an object, got {found!r}.")
  return found


def _fields(
  model: Mapping[str, Any], name: str, usual: Mapping[str, Any]
) -> dict[str, Any]:
  """A tower's fields; one that would change what it computes is refused."""
  given = _object(model, name)
  for field, value in given.items():
    changes = value not in (None, False, {})
    if field not in usual and field not in _FREE and changes:
      raise ValueError(
        f"{name}: {field} is not supported, got {value!r}. A model whose towers"
        " are timm's or Hugging Face's can be loaded as these save it."
      )
  found = {field: given.get(field, value) for field, value in usual.items()}
  for field in ("layers", "width", "head_width", "heads", "vocab_size"):
    value = found.get(field, 1)
    if not isinstance(value, int) or value < 1:
      raise ValueError(f"{name}: {field} must be a number, got {value!r}.")
  ratio = found["mlp_ratio"]
  if isinstance(ratio, bool) or not isinstance(ratio, int | float):
    raise ValueError(f"{name}: mlp_ratio must be a number, got {ratio!r}.")
  return found


def _one_of(
  tower: Mapping[str, Any], name: str, known: Mapping[str, Any]
) -> Any:
  if (value := tower["pool_type"]) not in [*known]:
    raise ValueError(
      f"{name}: pool_type must be one of {', '.join(map(repr, known))}, got"
      f" {value!r}."
    )
  return known[value]
