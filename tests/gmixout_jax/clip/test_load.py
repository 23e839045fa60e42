"""Tests that what is saved in any form is loaded again, and what is refused."""

import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from gmixout_jax import clip
from gmixout_jax.clip import huggingface_vit, open_clip, timm_config
from gmixout_jax.clip.config import VisionConfig
from tests.combinations import EXHAUSTIVE, every_value

SMALL = {
  "image_size": 16, "patch_size": 8, "width": 12, "depth": 2, "heads": 3,
  "mlp_width": 20,
}  # fmt: skip
VITS = {
  "plain": {"num_classes": 5},
  "no head": {"num_classes": 0},
  "layer scale": {"layer_scale": 0.1, "num_classes": 3},
  "registers": {"registers": 4, "num_classes": 2},
  "registers apart": {"registers": 2, "positions": "class"},
  "patches alone": {"registers": 2, "positions": "patches"},
  "no class token": {"class_token": False, "pool": "mean", "norm_pooled": True},
  "mean of normed": {"pool": "mean"},
  "max": {"pool": "max", "norm_pooled": True},
  "attention": {"class_token": False, "pool": "attention"},
  "qk norm": {"qk_norm": True, "qkv_bias": False},
  "swiglu": {"mlp": "swiglu"},
  "clip": {"pre_norm": True, "patch_bias": False, "activation": "quick_gelu"},
}
DINOS = {
  "dinov2": {"layer_scale": 1.0, "mlp_width": 24},
  "registers": {"layer_scale": 1.0, "mlp_width": 24, "registers": 3},
  "swiglu": {"layer_scale": 1.0, "mlp_width": 32, "mlp": "swiglu"},
}


def made(**fields):
  """A ViT whose parameters all matter: none is left at one or zero."""
  config = VisionConfig.vit(**SMALL | fields)
  return filled(lambda: clip.ViT(config, rngs=nnx.Rngs(0)))


def filled(make):
  graphdef, state = nnx.split(nnx.eval_shape(make))
  rng = np.random.default_rng(0)
  drawn = lambda leaf: jnp.asarray(rng.normal(0.2, 0.4, leaf.shape), leaf.dtype)
  return nnx.merge(graphdef, jax.tree.map(drawn, state))


def assert_same(first, second):
  assert first.config == second.config
  first, second = (nnx.to_pure_dict(nnx.state(m)) for m in (first, second))
  jax.tree.map(np.testing.assert_array_equal, first, second)


def same_but_for_names(config, other):
  """Where positions are told by another name of the same thing."""
  assert config.placed == other.placed
  fields = vars(config) | {"positions": other.positions}
  assert fields == vars(other)


@pytest.mark.parametrize(
  ("name", "target"), every_value(VITS, ["folder", "vit.safetensors"])
)
def test_a_vit_is_read_again_in_timms_form(tmp_path, name, target):
  model = made(**VITS[name])
  clip.save(model, tmp_path / target)
  again = clip.load(tmp_path / target)
  same_but_for_names(model.config, again.config)
  pixels = jax.random.normal(jax.random.key(2), (2, 16, 16, 3))
  np.testing.assert_array_equal(again(pixels), model(pixels))


@EXHAUSTIVE  # a test of these models, which do not change
@pytest.mark.parametrize("name", VITS)
def test_every_part_matters(name):
  """So that what is read wrongly shows in the features."""
  model = made(**VITS[name])
  pixels = jax.random.normal(jax.random.key(2), (2, 16, 16, 3))
  graphdef, state = nnx.split(model, nnx.Param)
  run = jax.jit(lambda state: nnx.merge(graphdef, state)(pixels))
  features = run(state)
  for path, leaf in nnx.to_flat_state(state):
    if re.search(r"key(_norm)?/bias$", "/".join(map(str, path))):
      continue  # it adds the same to all scores of a query
    flat = nnx.to_flat_state(state)
    changed = [
      (p, v.replace(v[...] + jnp.arange(v.size).reshape(v.shape) * 0.1))
      if p == path
      else (p, v)
      for p, v in flat
    ]
    other = run(nnx.from_flat_state(changed))
    assert np.abs(other - features).max() > 1e-4, (path, leaf.shape)


@pytest.mark.parametrize("name", DINOS)
def test_a_dinov2_is_read_again_in_hugging_faces_form(tmp_path, name):
  fields = {"num_classes": 0, "positions": "class"} | DINOS[name]
  model = made(**fields)
  clip.save(model, tmp_path / "out", form="huggingface")
  raw = json.loads((tmp_path / "out" / "config.json").read_text())
  assert raw["model_type"].startswith("dinov2")
  assert_same(clip.load(tmp_path / "out"), model)


@pytest.mark.parametrize("classes", [0, 4])
def test_a_plain_vit_is_read_again_in_hugging_faces_form(tmp_path, classes):
  model = made(num_classes=classes, eps=1e-12)
  clip.save(model, tmp_path, form="huggingface")
  assert_same(clip.load(tmp_path), model)
  fresh = clip.load(tmp_path, num_classes=7)
  assert fresh.head.kernel.shape == (12, 7)
  assert np.ptp(fresh.head.kernel[...]) == 0
  assert clip.load(tmp_path, num_classes=0).head is None
  assert clip.load(tmp_path, image_size=32).position_embedding.shape == (17, 12)


def test_a_form_without_a_place_for_something_is_refused(tmp_path):
  for fields, name in (
    ({"pool": "mean"}, "pool"),
    ({"registers": 2}, "registers"),
    ({"layer_scale": 0.1, "qk_norm": True, "mlp_width": 24}, "qk_norm"),
    ({"layer_scale": 0.1, "num_classes": 4, "mlp_width": 24}, "num_classes"),
  ):
    model = made(**{"num_classes": 0} | fields)
    with pytest.raises(ValueError, match=f"{name} must be "):
      clip.save(model, tmp_path / "out", form="huggingface")
    assert not (tmp_path / "out").exists()


def siglip():
  towers = {k: SMALL[k] for k in ("width", "depth", "heads", "mlp_width")}
  return clip.CLIPConfig(
    vision=clip.VisionConfig(
      image_size=16, patch_size=8, pre_norm=False, patch_bias=True,
      class_token=False, pool="attention", activation="gelu_tanh", eps=1e-6,
      **towers,
    ),
    text=clip.TextConfig(
      vocab_size=20, context_length=6, causal=False, pool="last",
      projection_bias=True, activation="gelu_tanh", eps=1e-6, **towers,
    ),
    projection_dim=12,
    vision_projection=False,
    logit_scale_init=0.0,
    logit_bias_init=0.0,
  )  # fmt: skip


def test_a_siglip_is_read_again(tmp_path):
  model = filled(lambda: clip.CLIP(siglip(), rngs=nnx.Rngs(0)))
  model.logit_scale[...] = jnp.float32(0)
  model.logit_bias[...] = jnp.float32(-10)
  clip.save(model, tmp_path)
  again = clip.load(tmp_path)
  assert_same(model, again)
  pixels, ids = jnp.ones((2, 16, 16, 3)), np.ones((3, 6), np.int32)
  cosines = again.encode_image(pixels) @ again.encode_text(ids).T
  np.testing.assert_allclose(again(pixels, ids), cosines - 10, rtol=1e-5)
  with pytest.raises(ValueError, match=r"filled up to 6 tokens, .* got 4"):
    again.encode_text(ids[:, :4])
  with pytest.raises(ValueError, match="form must be 'huggingface' for a CLIP"):
    clip.save(model, tmp_path, form="timm")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_on_disk_are_read(tmp_path, dtype):
  model = made(num_classes=3)
  clip.save(model, tmp_path, dtype=dtype)
  again = clip.load(tmp_path)
  narrow = getattr(ml_dtypes, dtype, np.float16)
  for ours, theirs in zip(
    *(jax.tree.leaves(nnx.state(m)) for m in (model, again)), strict=True
  ):
    expected = np.asarray(ours).astype(narrow).astype(np.float32)
    np.testing.assert_array_equal(theirs, expected)


def test_shards_are_read(tmp_path):
  model = clip.CLIP(siglip(), rngs=nnx.Rngs(0))
  clip.save(model, tmp_path)
  tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
  (tmp_path / "model.safetensors").unlink()
  names = sorted(tensors)
  where = {name: f"part-{i % 3}.safetensors" for i, name in enumerate(names)}
  for shard in set(where.values()):
    part = {name: tensors[name] for name in names if where[name] == shard}
    safetensors.numpy.save_file(part, tmp_path / shard)
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": where}))
  assert_same(clip.load(tmp_path), model)
  outside = where | {names[0]: "../elsewhere.safetensors"}
  index.write_text(json.dumps({"weight_map": outside}))
  with pytest.raises(clip.CheckpointError, match=r"must lie beside it"):
    clip.load(tmp_path)


def test_of_two_forms_in_one_folder_the_one_with_weights_is_read(tmp_path):
  """As models are published: one of them may be a pickle."""
  clip.save(made(), tmp_path)
  (tmp_path / "open_clip_config.json").write_text("{}")
  (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"\x80\x02")
  assert isinstance(clip.load(tmp_path), clip.ViT)
  (tmp_path / "model.safetensors").unlink()
  with pytest.raises(ValueError, match="model_cfg must be an object"):
    clip.load(tmp_path)


def test_a_folder_of_pickles_is_refused_with_what_converts_it(tmp_path):
  (tmp_path / "config.json").write_text('{"model_type": "vit"}')
  for name in ("pytorch_model.bin", "model.pt"):
    (tmp_path / name).write_bytes(b"\x80\x02")
    with pytest.raises(clip.CheckpointError) as caught:
      clip.load(tmp_path)
    lines = str(caught.value).splitlines()
    assert name in lines[0]
    assert lines[1].strip() == "import torch, safetensors.torch as st"
    assert f"torch.load({str(tmp_path / name)!r}" in lines[2]
    compile("\n".join(line.strip() for line in lines[1:]), name, "exec")
    (tmp_path / name).unlink()


@pytest.mark.parametrize(
  ("files", "message"),
  [
    ({}, "no model.safetensors in"),
    ({"vit.safetensors": b""}, "no config.json in .*it holds vit.safetensors"),
    ({"config.json": b"{}"}, "model_type must be one of .*, got null"),
    ({"config.json": b'{"model_type": "bert"}'}, 'got "bert"'),
    ({"config.json": b"["}, "config.json: expected JSON"),
    ({"config.json": b'{"model_type": "vit", "hidden_act": "relu"}'}, "'relu'"),
    (
      {"open_clip_config.json": b'{"model_cfg": {"vision_cfg": '
       b'{"timm_model_name": "resnet50"}, "text_cfg": {}}}'},
      "vision_cfg: timm_model_name is not supported, got 'resnet50'",
    ),
    (
      {"open_clip_config.json": b'{"model_cfg": {"vision_cfg": '
       b'{"norm_kwargs": {}, "mlp_ratio": null}, "text_cfg": {}}}'},
      "vision_cfg: mlp_ratio must be a number, got None",
    ),
  ],
)  # fmt: skip
def test_what_is_no_model_is_refused_by_name(tmp_path, files, message):
  for name, content in files.items():
    (tmp_path / name).write_bytes(content)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    clip.load(tmp_path)
  with pytest.raises(FileNotFoundError, match="nowhere"):
    clip.load(tmp_path / "nowhere")


def test_arguments_without_a_meaning_are_refused(tmp_path):
  clip.save(clip.CLIP(siglip(), rngs=nnx.Rngs(0)), tmp_path)
  for name, value in (("heads", 3), ("num_classes", 0), ("pool", "mean")):
    with pytest.raises(
      ValueError, match=f"{name} has no meaning for {tmp_path}"
    ):
      clip.load(tmp_path, **{name: value})


@pytest.mark.parametrize(
  ("raw", "pre_norm", "expected"),
  [
    ({"global_pool": "token"}, False, {"pool": "class"}),
    ({"global_pool": "map"}, False, {"pool": "attention"}),
    ({"model_args": {"num_heads": 6}}, False, {"heads": 6}),
    ({"model_args": {"img_size": [28, 28]}}, False, {"image_size": 28}),
    (
      {"architecture": "vit_base_patch32_clip_quickgelu_224"},
      True,
      {"activation": "quick_gelu", "eps": 1e-5},
    ),
    (
      {"architecture": "vit_base_patch32_clip_224"},
      True,
      {"activation": "gelu", "eps": 1e-5},
    ),
    ({"model_args": {"norm_layer": "layernorm"}}, False, {}),
    # Nothing but the name tells: of SigLIP's, some have another GELU.
    *(
      ({"architecture": f"vit_{name}"}, False, {"activation": activation})
      for name, activation in (
        ("base_patch16_siglip_224", "gelu"),
        ("base_patch32_siglip_256", "gelu_tanh"),
        ("base_patch32_siglip_gap_256", "gelu_tanh"),
        ("large_patch16_siglip_384", "gelu"),
        ("large_patch16_siglip_gap_512", "gelu_tanh"),
        ("so400m_patch14_siglip_384", "gelu"),
        ("so400m_patch16_siglip_gap_384", "gelu_tanh"),
        ("so150m_patch16_reg4_map_256", "gelu"),
      )
    ),
    (
      {"architecture": "vit_giantopt_patch16_siglip_gap_384"},
      False,
      {"heads": 16, "activation": "gelu_tanh"},
    ),
    (
      {"architecture": "vit_base_patch16_gap_224"},
      False,
      {"heads": 16, "activation": "gelu"},
    ),
    (
      {
        "architecture": "vit_giantopt_patch16_siglip_256",
        "model_args": {"num_heads": 4, "act_layer": "gelu"},
      },
      False,
      {"heads": 4, "activation": "gelu"},
    ),
  ],
)
def test_timms_config_tells_what_tensors_do_not(raw, pre_norm, expected):
  assert timm_config.parse(raw, pre_norm=pre_norm) == expected


@pytest.mark.parametrize(
  ("raw", "message"),
  [
    ({"global_pool": "avgmax"}, "global_pool must be one of .*, got 'avgmax'"),
    ({"model_args": {"norm_layer": "rmsnorm"}}, "norm_layer is not supported"),
    ({"model_args": {"act_layer": "silu"}}, "act_layer must be .* got 'silu'"),
    ({"model_args": {"img_size": [28, 14]}}, r"one number .* got \[28, 14\]"),
    ({"model_args": 3}, "model_args must be an object, got 3"),
    ({"model_args": {"final_norm": False}}, "final_norm is not supported"),
    ({"architecture": "vit_base_patch16_rpn_224"}, "rpn_224' is not supported"),
    ({"pretrained_cfg": {"input_size": 224}}, "input_size must be .* got 224"),
    ({"model_args": {"img_size": 2.5}}, "one number of pixels, got 2.5"),
  ],
)
def test_what_timms_config_asks_for_and_is_not_there_is_refused(raw, message):
  with pytest.raises(ValueError, match=message):
    timm_config.parse(raw, pre_norm=False)


def test_the_defaults_of_libraries_are_filled_in():
  found = huggingface_vit.parse({"model_type": "vit"})
  assert (found.width, found.heads, found.eps) == (768, 12, 1e-12)
  found = huggingface_vit.parse({"model_type": "dinov2_with_registers"})
  assert (found.registers, found.positions, found.patch_size) == (
    4,
    "class",
    14,
  )
  giant = {"hidden_size": 1536, "num_attention_heads": 24, "use_swiglu_ffn": 1}
  found = huggingface_vit.parse({"model_type": "dinov2", **giant})
  assert (found.mlp, found.mlp_width) == ("swiglu", 4096)
  raw = {"model_cfg": {"vision_cfg": {}, "text_cfg": {}, "quick_gelu": True}}
  found = open_clip.parse(raw)
  assert (found.vision.width, found.vision.heads) == (768, 12)
  assert (found.text.width, found.text.activation) == (512, "quick_gelu")
  assert re.fullmatch("end", found.text.pool)
