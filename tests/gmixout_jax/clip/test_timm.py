"""Tests `gmixout_jax/clip/timm.py` and the golden vectors of a ViT-Ti/16."""

import re

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from gmixout_jax import clip
from gmixout_jax.clip import timm_tensors, weights

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


def test_heads_are_those_of_a_published_vit_or_must_be_given(path):
  rewrite(path)  # without what was noted in the file
  with pytest.raises(ValueError, match=r"heads must be given: .* is 12 wide"):
    clip.vit_from_safetensors(path)
  with pytest.raises(ValueError, match=r"width = 12 and heads = 5"):
    clip.vit_from_safetensors(path, heads=5)


@pytest.mark.parametrize(
  ("width", "heads"), [(192, 3), (768, 12), (1280, 16), (1664, 16)]
)
def test_the_heads_of_published_vits_are_known(path, width, heads):
  rewrite(path)
  tensors = weights.Files([path])
  tensors.shapes["patch_embed.proj.weight"] = (width, 3, 8, 8)
  assert timm_tensors.describe(tensors, {}).heads == heads


def test_of_1536_heads_are_those_of_dinov2_alone(path):
  rewrite(path)
  tensors = weights.Files([path])
  tensors.shapes["patch_embed.proj.weight"] = (1536, 3, 8, 8)
  with pytest.raises(ValueError, match=r"heads must be given: .* 1536 wide"):
    timm_tensors.describe(tensors, {})
  hidden = tensors.shapes["blocks.0.mlp.fc2.weight"][1]
  tensors.shapes["blocks.0.mlp.fc1.weight"] = (2 * hidden, 1536)
  assert timm_tensors.describe(tensors, {}).heads == 24


def test_who_pools_by_attention_is_asked_for_its_activation(path):
  rewrite(path)
  tensors = weights.Files([path])
  tensors.shapes["attn_pool.latent"] = (1, 1, 12)
  with pytest.raises(ValueError, match=r"^activation must be given: .* SigLIP"):
    timm_tensors.describe(tensors, {"heads": 3})
  found = timm_tensors.describe(tensors, {"heads": 3, "activation": "gelu"})
  assert found.pool == "attention"


def test_what_tensors_do_not_tell_is_asked_for(path):
  rewrite(path)
  ln = np.ones(12, np.float32)
  rewrite(path, norm_pre__weight=ln, norm_pre__bias=ln)
  for name in ("activation", "eps"):
    given = {"activation": "gelu", "eps": 1e-5} | {name: None}
    with pytest.raises(ValueError, match=f"^{name} must be given: "):
      clip.vit_from_safetensors(path, heads=3, **given)
  found = clip.vit_from_safetensors(path, heads=3, activation="gelu", eps=1e-5)
  assert (found.config.pre_norm, found.config.eps) == (True, 1e-5)
  rewrite(path, norm_pre__weight=None, norm_pre__bias=None)
  rewrite(path, norm__weight=None, norm__bias=None)
  rewrite(path, fc_norm__weight=ln, fc_norm__bias=ln)
  with pytest.raises(
    ValueError, match=r"^pool must be given, 'mean' or 'max' or 'class'"
  ):
    clip.vit_from_safetensors(path, heads=3)
  found = clip.vit_from_safetensors(path, heads=3, pool="max")
  assert (found.config.pool, found.config.norm_pooled) == ("max", True)
  rewrite(path, cls_token=None, pos_embed=np.zeros((1, 4, 12), np.float32))
  with pytest.raises(ValueError, match=r"'mean' or 'max': .* no class token"):
    clip.vit_from_safetensors(path, heads=3)


@pytest.mark.parametrize(
  ("name", "part"),
  [
    ("dist_token", "a distillation token"),
    ("pre_logits.fc.weight", "a pre-logits layer"),
    ("blocks.0.attn.norm.weight", "a norm inside attention"),
    ("blocks.1.mlp.norm.weight", "a norm inside the MLP"),
    ("blocks.0.mlp.fc1_g.weight", "a SwiGLU of three matrices"),
  ],
)
def test_variants_that_would_compute_nonsense_are_refused(path, name, part):
  rewrite(path, **{name: np.zeros(12, np.float32)})
  with pytest.raises(clip.CheckpointError, match=re.escape(f"{part}: {name}")):
    clip.vit_from_safetensors(path, heads=3)


@pytest.mark.parametrize(
  ("name", "fault"),
  [
    ("blocks.0.ls1.gamma", "missing: blocks.1.ls2.gamma"),
    ("blocks.1.attn.q_norm.weight", "extra: blocks.1.attn.q_norm.weight"),
    ("reg_token", "extra: reg_token"),
  ],
)
def test_half_of_a_part_is_refused(path, name, fault):
  rewrite(path, **{name: np.zeros(12, np.float32)})
  with pytest.raises(clip.CheckpointError, match=re.escape(fault)):
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


def test_positions_of_patches_alone_are_added_to_them_alone(model, path):
  patches = np.asarray(model.position_embedding[...])[1:]
  rewrite(path, pos_embed=patches[None])
  loaded = clip.vit_from_safetensors(path, heads=3)
  assert loaded.config.positions == "patches"
  pixels = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
  # As a model whose class token has a position of zeros.
  zeros = np.concatenate([np.zeros((1, 12), np.float32), patches])
  model.position_embedding[...] = zeros
  np.testing.assert_allclose(loaded(pixels), model(pixels), atol=1e-6)
  larger = clip.vit_from_safetensors(path, heads=3, image_size=32)
  assert larger.position_embedding.shape == (16, 12)


@pytest.mark.parametrize(
  "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "visual.trunk."]
)
def test_what_wrapped_a_model_is_named(path, prefix):
  tensors = safetensors.numpy.load_file(path)
  wrapped = {prefix + name: value for name, value in tensors.items()}
  safetensors.numpy.save_file(wrapped, path)
  with pytest.raises(
    clip.CheckpointError, match=re.escape(f"has the prefix {prefix!r}")
  ):
    clip.vit_from_safetensors(path)


def test_other_models_are_refused(path, tmp_path):
  rewrite(path, pos_embed=np.zeros((1, 3, 12), np.float32))
  message = r"pos_embed is \[1, 3, 12\], which is no square of patches"
  for size in (None, 32):
    with pytest.raises(clip.CheckpointError, match=message):
      clip.vit_from_safetensors(path, heads=3, image_size=size)
  other = tmp_path / "other.safetensors"
  safetensors.numpy.save_file({"w": np.zeros(3)}, other)
  with pytest.raises(clip.CheckpointError, match=r"pos_embed: missing"):
    clip.vit_from_safetensors(other)
