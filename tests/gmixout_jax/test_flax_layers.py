"""Tests the layers of Flax, NNX and Linen, in the dense form.

What an input is, is told by the layers' own functions.
"""

import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import gmixout_jax as gx
from tests.combinations import EXHAUSTIVE, tried
from tests.gmixout_jax.foreign_models import (
  SAMPLERS,
  assert_counts,
  assert_whole_inputs,
  settings_of,
  unit_images,
  unit_vectors,
)

pytestmark = pytest.mark.slow

DEPTH = 2
# Letters of the kernels; None where names and ranks do not tell.
AXES = {
  "linear/kernel": ("io", "io"),
  "conv/kernel": ("ssio", "ssio"),
  "general/kernel": ("ioo", None),
  "attention/query/kernel": ("ioo", "ioo"),
  "attention/key/kernel": ("ioo", "ioo"),
  "attention/value/kernel": ("ioo", "ioo"),
  "attention/out/kernel": ("iio", "iio"),
  "blocks/linear/kernel": ("lio", None),
  "blocks/attention/query/kernel": ("lioo", "lioo"),
  "blocks/attention/key/kernel": ("lioo", "lioo"),
  "blocks/attention/value/kernel": ("lioo", "lioo"),
  "blocks/attention/out/kernel": ("liio", "liio"),
}
TOKENS = jax.random.normal(jax.random.key(1), (3, 8))
IMAGE = jax.random.normal(jax.random.key(2), (1, 5, 5, 4))


def axes(path, leaf):
  del leaf
  found = [letters for name, (letters, _) in AXES.items() if path == name]
  return found[0] if found else None


class NnxBlock(nnx.Module):
  def __init__(self, rngs):
    self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
    self.linear = nnx.Linear(8, 8, rngs=rngs)

  def __call__(self, x):
    return x + self.linear(jnp.tanh(self.attention(x)))


class NnxLayers(nnx.Module):
  def __init__(self, rngs):
    self.linear = nnx.Linear(8, 6, rngs=rngs)
    self.conv = nnx.Conv(4, 6, kernel_size=(3, 3), rngs=rngs)
    self.general = nnx.LinearGeneral(8, (2, 4), rngs=rngs)
    self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
    split = nnx.split_rngs(splits=DEPTH)
    self.blocks = split(nnx.vmap(NnxBlock))(rngs)

  def __call__(self):
    scan = nnx.scan(
      lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry
    )
    return (
      self.linear(TOKENS), self.conv(IMAGE), self.general(TOKENS),
      self.attention(TOKENS), scan(TOKENS, self.blocks),
    )  # fmt: skip


class LinenBlock(linen.Module):
  @linen.compact
  def __call__(self, x, _):
    attention = linen.MultiHeadDotProductAttention(2, name="attention")
    return x + linen.Dense(8, name="linear")(jnp.tanh(attention(x))), None


class LinenLayers(linen.Module):
  @linen.compact
  def __call__(self):
    scan = linen.scan(
      LinenBlock, {"params": 0}, split_rngs={"params": True}, length=DEPTH
    )
    return (
      linen.Dense(6, name="linear")(TOKENS),
      linen.Conv(6, (3, 3), name="conv")(IMAGE),
      linen.DenseGeneral((2, 4), name="general")(TOKENS),
      linen.MultiHeadDotProductAttention(2, name="attention")(TOKENS),
      scan(name="blocks")(TOKENS, None)[0],
    )


@functools.cache
def model(library):
  """Parameters as a dict, and the loss of them."""
  with jax.numpy_rank_promotion("allow"):
    if library == "linen":
      layers = LinenLayers()
      params = jax.jit(layers.init)(jax.random.key(0))["params"]
      run = lambda params: layers.apply({"params": params})
    else:
      graph, state, rest = nnx.split(NnxLayers(nnx.Rngs(0)), nnx.Param, ...)
      params = nnx.to_pure_dict(state)
      run = lambda params: nnx.merge(graph, nnx.State(params), rest)()

  def loss(params):
    return sum(jnp.mean(jnp.square(y - 1.0)) for y in run(params))

  return params, loss


@functools.cache
def stepped(library, sampler):
  """Weights before and after a step, the masks, and later losses."""
  params, loss = model(library)
  tx = gx.gmixout(optax.adam(0.01), **settings_of(sampler, axes))

  @jax.jit
  def step(params, state):
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  with jax.numpy_rank_promotion("allow"):
    state = tx.init(params)
    masks = jax.jit(gx.gmixout_masks)(state, params)
    trained, after = params, []
    for _ in range(3):
      trained, state = step(trained, state)
      after.append(trained)
    losses = [float(x) for x in map(jax.jit(loss), (params, trained))]
  return params, after[0], jax.device_get(masks), losses


def leaf_at(tree, path):
  return functools.reduce(lambda node, name: node[name], path.split("/"), tree)


both = pytest.mark.parametrize("library", ["nnx", "linen"])


@both
def test_names_tell_the_axes(library):
  params, _ = model(library)
  for which, given in enumerate((axes, "flax")):
    summary = gx.gmixout_summary(params, axes=given, sparsity=0.5)
    found = {leaf.path: leaf.axes for leaf in summary.leaves if leaf.axes}
    assert found == {n: both[which] for n, both in AXES.items() if both[which]}
    mixed = {leaf.path for leaf in summary.leaves if leaf.label == "mixed"}
    assert mixed == set(AXES)


@both
def test_what_they_do_not_tell_is_an_error(library):
  params, _ = model(library)
  settings = settings_of("neuron", "flax")
  unknown = "|".join(n for n, (_, flax) in AXES.items() if flax is None)
  with pytest.raises(ValueError, match=rf"'({unknown})' .* pass axes="):
    gx.gmixout(**settings).init(params)


@pytest.mark.parametrize(
  ("library", "sampler"),
  # Other libraries' models are tried with the other samplers.
  tried(
    itertools.product(["linen", "nnx"], SAMPLERS),
    lambda *case: case in {("linen", "stratified"), ("nnx", "neuron")},
  ),
)
def test_kept_fractions(library, sampler):
  params, _ = model(library)
  settings = settings_of(sampler, axes)
  masks = jax.jit(lambda p: gx.gmixout_masks(gx.gmixout(**settings).init(p), p))
  assert_counts(params, jax.device_get(masks(params)), **settings)


def layer_function(library, name, kernel):
  """What a layer makes of inputs with a kernel of our own and no bias."""
  heads_in = name.endswith("out/kernel")
  if library == "nnx":
    rngs = nnx.Rngs(0)
    if kernel.ndim == 4:
      layer = nnx.Conv(4, 6, (3, 3), use_bias=False, rngs=rngs)
    elif kernel.ndim == 2:
      layer = nnx.Linear(*kernel.shape, use_bias=False, rngs=rngs)
    elif heads_in:
      layer = nnx.LinearGeneral(
        kernel.shape[:2],
        kernel.shape[2],
        axis=(-2, -1),
        use_bias=False,
        rngs=rngs,
      )
    else:
      layer = nnx.LinearGeneral(
        kernel.shape[0], kernel.shape[1:], use_bias=False, rngs=rngs
      )
    assert layer.kernel.shape == kernel.shape
    layer.kernel[...] = kernel
    return layer
  if kernel.ndim == 4:
    layer = linen.Conv(6, (3, 3), use_bias=False)
  elif heads_in:
    layer = linen.DenseGeneral(kernel.shape[2], axis=(-2, -1), use_bias=False)
  else:
    layer = linen.DenseGeneral(kernel.shape[1:], use_bias=False)
  return lambda x: layer.apply({"params": {"kernel": kernel}}, x)


@pytest.mark.parametrize(
  "library", tried(["nnx", "linen"], lambda library: library == "nnx")
)
def test_neurons_are_whole_inputs(library):
  before, after, _, losses = stepped(library, "neuron")
  assert losses[1] < losses[0]
  for name in AXES:
    change = leaf_at(after, name) - leaf_at(before, name)
    stack = change if name.startswith("blocks") else [change]
    for kernel in stack:
      apply = layer_function(library, name, kernel)
      if kernel.ndim == 4:
        assert_whole_inputs(
          lambda image, apply=apply: apply(image[None])[0, 1:-1, 1:-1],
          unit_images(4, last=True),
        )
        continue
      shape = (
        kernel.shape[:2] if name.endswith("out/kernel") else kernel.shape[:1]
      )
      units = unit_vectors(math.prod(shape)).reshape(-1, *shape)
      assert_whole_inputs(apply, units)


@EXHAUSTIVE  # as of plain matrices, in `test_transform_identities.py`
@pytest.mark.parametrize("sampler", ["stratified", "uniform"])
def test_other_samplers_update_the_mask_only(sampler):
  before, after, masks, losses = stepped("linen", sampler)
  assert losses[1] < losses[0]
  for name in AXES:
    moved = np.asarray(leaf_at(after, name) != leaf_at(before, name))
    if re.search("key|query", name):  # a gradient may all but vanish there
      assert not (moved & ~leaf_at(masks, name)).any()
    else:
      np.testing.assert_array_equal(moved, leaf_at(masks, name))
