"""Tests `gmixout_jax/clip/timm.py` and the golden vectors of a ViT-Ti/16."""

import re

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from gmixout_jax import clip

pytestmark = pytest.mark.slow

WEIGHTS = "data/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"
CONFIG = clip.VisionConfig.vit(
  image_size=16,
  patch_size=8,
  width=12,
  depth=2,
  heads=3,
  mlp_width=20,
  num_classes=5,
)


@pytest.fixture(scope="module")
def model(make):
  return make(lambda rngs: clip.ViT(CONFIG, rngs=rngs))


@pytest.fixture
def path(model, tmp_path):
  clip.vit_to_safetensors(model, tmp_path / "vit.safetensors")
  return tmp_path / "vit.safetensors"


def assert_same(first, second):
  first, second = (nnx.to_pure_dict(nnx.state(m)) for m in (first, second))
  jax.tree.map(np.testing.assert_array_equal, first, second)


def rewrite(path, **changes):
  """Sets tensors in a file; None drops them. A "__" stands for a dot."""
  tensors = safetensors.numpy.load_file(path)
  for name, value in changes.items():
    name = name.replace("__", ".")
    if value is None:
      del tensors[name]
    else:
      tensors[name] = value
  safetensors.numpy.save_file(tensors, path)


@pytest.mark.shared
def test_agrees_with_the_reference_implementation(shared):
  model = clip.vit_from_safetensors(shared / WEIGHTS)
  expected = np.load(shared / "golden/vit_tiny_expected.npz")
  pixels = clip.preprocess(
    expected["images_uint8_nhwc"], mean=clip.HALF, std=clip.HALF
  )
  features, logits = nnx.jit(lambda m, x: (m.features(x), m(x)))(model, pixels)
  np.testing.assert_allclose(features, expected["features"], rtol=0, atol=1e-4)
  np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4)


def test_load_undoes_save(model, path):
  loaded = clip.vit_from_safetensors(path, heads=3)
  assert loaded.config == CONFIG
  assert_same(model, loaded)


def test_the_folder_is_made(model, tmp_path):
  path = tmp_path / "new" / "folder" / "vit.safetensors"
  clip.vit_to_safetensors(model, path)
  assert_same(model, clip.vit_from_safetensors(path, heads=3))


def test_fused_qkv_is_query_key_value_in_turn(model, path):
  """PyTorch's side by hand: y = x Wᵀ + b, cut into three."""
  tensors = safetensors.numpy.load_file(path)
  weight = tensors["blocks.1.attn.qkv.weight"]
  assert weight.shape == (36, 12)
  attention = model.blocks[1].attention
  for i, layer in enumerate((attention.query, attention.key, attention.value)):
    np.testing.assert_array_equal(
      weight[12 * i : 12 * i + 12].T, layer.kernel[...]
    )
  kernel = tensors["patch_embed.proj.weight"]
  np.testing.assert_array_equal(
    kernel.transpose(2, 3, 1, 0), model.patch_embedding.kernel[...]
  )
  assert tensors["cls_token"].shape == (1, 1, 12)
  assert tensors["pos_embed"].shape == (1, 5, 12)


def test_the_head_may_be_absent_dropped_or_replaced(model, path):
  bare = clip.vit_from_safetensors(path, heads=3, num_classes=0)
  assert bare.head is None
  fresh = clip.vit_from_safetensors(path, heads=3, num_classes=7)
  assert fresh.head is not None
  np.testing.assert_array_equal(fresh.head.kernel[...], np.zeros((12, 7)))
  np.testing.assert_array_equal(fresh.head.bias[...], np.zeros(7))
  rewrite(path, head__weight=None, head__bias=None)
  assert_same(bare, clip.vit_from_safetensors(path, heads=3))


def test_another_image_size_interpolates_positions(model, path):
  loaded = clip.vit_from_safetensors(path, heads=3, image_size=24)
  assert loaded.config.image_size == 24
  np.testing.assert_array_equal(
    loaded.position_embedding[...],
    clip.resize_positions(model.position_embedding[...], 3),
  )


def test_a_clip_tower_of_timm_is_recognised(make, tmp_path):
  config = clip.VisionConfig(
    image_size=16, patch_size=8, width=12, depth=1, heads=3, mlp_width=20
  )
  model = make(lambda rngs: clip.ViT(config, rngs=rngs))
  path = tmp_path / "tower.safetensors"
  clip.vit_to_safetensors(model, path, dtype="float16")
  loaded = clip.vit_from_safetensors(
    path, heads=3, eps=1e-5, activation="quick_gelu"
  )
  assert loaded.config == config


def test_heads_are_width_over_64_or_must_be_given(path):
  with pytest.raises(ValueError, match=r"heads must be given, as the width 12"):
    clip.vit_from_safetensors(path)
  with pytest.raises(ValueError, match=r"width = 12 and heads = 5"):
    clip.vit_from_safetensors(path, heads=5)


@pytest.mark.parametrize(
  ("name", "part"),
  [
    ("dist_token", "a distillation token"),
    ("reg_token", "register tokens"),
    ("fc_norm.weight", "average pooling"),
    ("blocks.0.ls1.gamma", "LayerScale"),
    ("blocks.1.attn.q_norm.weight", "query and key norms"),
    ("pre_logits.fc.weight", "a pre-logits layer"),
  ],
)
def test_variants_that_would_compute_nonsense_are_refused(path, name, part):
  rewrite(path, **{name: np.zeros(12, np.float32)})
  with pytest.raises(clip.CheckpointError, match=re.escape(f"{part}: {name}")):
    clip.vit_from_safetensors(path, heads=3)


def test_all_faults_are_listed_at_once(path):
  rewrite(
    path,
    blocks__1__norm1__bias=None,
    blocks__0__attn__qkv__weight=np.zeros((24, 12), np.float32),
    extra=np.zeros(1, np.float32),
  )
  with pytest.raises(clip.CheckpointError) as caught:
    clip.vit_from_safetensors(path, heads=3)
  message = str(caught.value)
  assert message.count("\n") == 3
  assert "missing: blocks.1.norm1.bias [12]" in message
  assert "qkv.weight is [24, 12], needs [36, 12]" in message
  assert "extra: extra [1]" in message


def test_other_models_are_refused(path, tmp_path):
  rewrite(path, pos_embed=np.zeros((1, 4, 12), np.float32))
  with pytest.raises(clip.CheckpointError, match=r"pos_embed is \[1, 4, 12\]"):
    clip.vit_from_safetensors(path, heads=3)
  message = rf"{path}: pos_embed is \[1, 4, 12\]: .* square of patches, got 4"
  with pytest.raises(clip.CheckpointError, match=message):
    clip.vit_from_safetensors(path, heads=3, image_size=32)
  other = tmp_path / "other.safetensors"
  safetensors.numpy.save_file({"w": np.zeros(3)}, other)
  with pytest.raises(clip.CheckpointError, match=r"pos_embed: missing"):
    clip.vit_from_safetensors(other)
