"""Tests `gmixout_jax/clip/vision.py`."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gmixout_jax import clip

pytestmark = pytest.mark.slow

CONFIG = clip.VisionConfig.vit(
  image_size=16,
  patch_size=8,
  width=12,
  depth=1,
  heads=3,
  mlp_width=20,
  num_classes=5,
)


@pytest.fixture(scope="module")
def model(make):
  return make(lambda rngs: clip.ViT(CONFIG, rngs=rngs))


def paths(model):
  state = nnx.to_flat_state(nnx.state(model, nnx.Param))
  return {"/".join(map(str, path)): leaf.shape for path, leaf in state}


def test_parameter_paths_are_the_documented_ones(model):
  found = paths(model)
  expected = {
    "patch_embedding/kernel": (8, 8, 3, 12),
    "patch_embedding/bias": (12,),
    "class_embedding": (12,),
    "position_embedding": (5, 12),
    "norm/scale": (12,),
    "norm/bias": (12,),
    "head/kernel": (12, 5),
    "head/bias": (5,),
    "blocks/0/norm1/scale": (12,),
    "blocks/0/norm1/bias": (12,),
    "blocks/0/norm2/scale": (12,),
    "blocks/0/norm2/bias": (12,),
    "blocks/0/mlp/fc1/kernel": (12, 20),
    "blocks/0/mlp/fc1/bias": (20,),
    "blocks/0/mlp/fc2/kernel": (20, 12),
    "blocks/0/mlp/fc2/bias": (12,),
  }
  for name in ("query", "key", "value", "out"):
    expected[f"blocks/0/attention/{name}/kernel"] = (12, 12)
    expected[f"blocks/0/attention/{name}/bias"] = (12,)
  assert found == expected


def test_patches_are_read_row_by_row(make, rng):
  """The oracle cuts the image by hand; only the embedding part is at work."""
  model = make(lambda rngs: clip.ViT(CONFIG, rngs=rngs))
  model.blocks = nnx.List([])
  image = rng.normal(size=(1, 16, 16, 3)).astype(np.float32)
  kernel = np.asarray(model.patch_embedding.kernel[...], np.float64)
  positions = np.asarray(model.position_embedding[...], np.float64)
  expected = [model.class_embedding[...] + positions[0]]
  for row in range(2):
    for column in range(2):
      patch = image[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
      value = np.einsum("hwc,hwcd->d", patch, kernel)
      value = value + model.patch_embedding.bias[...]
      expected.append(value + positions[len(expected)])
  np.testing.assert_allclose(model.tokens(image)[0], expected, atol=1e-5)


def test_head_reads_the_features(make, model, rng):
  x = jnp.asarray(rng.normal(size=(2, 16, 16, 3)), jnp.float32)
  features = model.features(x)
  expected = features @ model.head.kernel[...] + model.head.bias[...][None]
  np.testing.assert_allclose(model(x), expected, atol=1e-6)
  config = dataclasses.replace(CONFIG, num_classes=0)
  bare = make(lambda rngs: clip.ViT(config, rngs=rngs))
  np.testing.assert_array_equal(bare(x), bare.features(x))


def test_bfloat16_computes_near_float32_with_float32_parameters(make, rng):
  half = dataclasses.replace(CONFIG, dtype="bfloat16")
  models = [
    make(lambda rngs, c=c: clip.ViT(c, rngs=rngs)) for c in (CONFIG, half)
  ]
  x = jnp.asarray(rng.normal(size=(2, 16, 16, 3)), jnp.float32)
  full, fast = (nnx.jit(clip.ViT.features)(model, x) for model in models)
  assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(models[1]))} == {
    jnp.dtype("float32")
  }
  assert fast.dtype == jnp.bfloat16
  # The residual stream too: one float32 layer would turn all of it.
  stream = nnx.eval_shape(clip.ViT.tokens, models[1], x)
  assert stream.dtype == jnp.bfloat16
  assert full.dtype == jnp.float32
  np.testing.assert_allclose(fast.astype(jnp.float32), full, atol=0.05)


@pytest.mark.parametrize(
  ("shape", "dtype", "message"),
  [
    ((2, 8, 8, 3), "float32", "[batch, 16, 16, 3], got [2, 8, 8, 3]"),
    ((2, 3, 16, 16), "float32", "[batch, 16, 16, 3], got [2, 3, 16, 16]"),
    ((16, 16, 3), "float32", "[batch, 16, 16, 3], got [16, 16, 3]"),
    ((2, 16, 16, 3), "uint8", "must be normalised floats, got uint8"),
  ],
)
def test_wrong_pixels_are_refused(model, shape, dtype, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    model(np.zeros(shape, dtype))


def test_models_of_one_config_share_a_compiled_program():
  """A fresh initializer or lambda in the graph would recompile each model."""
  first, second = (
    nnx.split(nnx.eval_shape(lambda: clip.ViT(CONFIG, rngs=nnx.Rngs(0))))[0]
    for _ in range(2)
  )
  assert first == second
  assert hash(first) == hash(second)


def test_tree_mode_works_like_graph_mode(make, rng):
  config = dataclasses.replace(CONFIG, remat=True)
  x = jnp.asarray(rng.normal(size=(2, 16, 16, 3)), jnp.float32)

  def gradient():
    model = make(lambda rngs: clip.ViT(config, rngs=rngs))
    grads = nnx.jit(nnx.grad(lambda m: (m(x) ** 2).sum()))(model)
    return nnx.to_pure_dict(nnx.state(grads))

  graph = gradient()
  try:
    nnx.set_graph_mode(False)
    nnx.set_graph_updates(False)
    tree = gradient()
  finally:
    nnx.set_graph_mode(True)
    nnx.set_graph_updates(True)
  jax.tree.map(np.testing.assert_array_equal, graph, tree)


def test_resize_keeps_the_same_grid_and_the_class_token(rng):
  table = rng.normal(size=(1 + 9, 4)).astype(np.float32)
  np.testing.assert_array_equal(clip.resize_positions(table, 3), table)
  np.testing.assert_array_equal(clip.resize_positions(table, 5)[0], table[0])


@pytest.mark.parametrize("grid", [2, 6, 9])
def test_resize_keeps_constants_and_gradients(grid):
  """Cubic interpolation reproduces a plane, away from the clamped border."""
  constant = clip.resize_positions(np.full((1 + 49, 2), 3.0, np.float32), grid)
  np.testing.assert_allclose(constant, 3.0, rtol=1e-5)
  rows, columns = np.mgrid[:7, :7] + 0.5
  plane = np.stack([rows.ravel(), columns.ravel()], axis=1)
  table = np.concatenate([np.zeros((1, 2)), plane]).astype(np.float32)
  found = np.asarray(clip.resize_positions(table, grid))[1:]
  found = found.reshape(grid, grid, 2)
  if grid > 7:
    centers = (np.mgrid[:grid, :grid] + 0.5) * 7 / grid
    inner = slice(3, -3)
    np.testing.assert_allclose(
      found[inner, inner],
      centers.transpose(1, 2, 0)[inner, inner],
      rtol=1e-5,
    )
  assert (np.diff(found[..., 0], axis=0) > 0).all()
  assert (np.diff(found[..., 1], axis=1) > 0).all()


def test_resize_refuses_what_is_no_square():
  with pytest.raises(ValueError, match=r"got 9 tokens"):
    clip.resize_positions(np.zeros((9, 4), np.float32), 2)
  with pytest.raises(ValueError, match=r"grid must be at least 1, got 0"):
    clip.resize_positions(np.zeros((10, 4), np.float32), 0)
