"""Tests `gmixout_jax/nnx.py`: the gradients that taps in layers give.

The references are `jax.grad` of the dense weights, and taps on the weights.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gmixout_jax as gx
from gmixout_jax import clip
from tests.combinations import EXHAUSTIVE, every_value, tried
from tests.gmixout_jax.compiling import (
  compare,
  count_dense_gradients,
  jit,
  kept_shapes,
)
from tests.gmixout_jax.nnx_network import (
  EVERYTHING,
  INPUTS,
  KERNELS,
  Network,
  filled,
  square,
  tapped_and_plain,
)

pytestmark = pytest.mark.slow


class Standardized(nnx.Linear):
  """Multiplies by something else than its kernel."""

  def __call__(self, inputs):
    kernel = self.kernel[...]
    kernel -= kernel.mean(0, keepdims=True)
    kernel /= kernel.std(0, keepdims=True) + 1e-5
    return self.dot_general(inputs, kernel, (((1,), (0,)), ((), ())))


def halved(values, **options):
  values = nnx.nn.dtypes.promote_dtype(values, **options)
  return (values[0], values[1] / 2, *values[2:])


CHANGING = {
  "own call": lambda rngs: Standardized(12, 20, rngs=rngs),
  "WeightNorm": lambda rngs: nnx.WeightNorm(
    nnx.Linear(12, 20, rngs=rngs), rngs=rngs
  ),
  "promote_dtype": lambda rngs: nnx.Linear(
    12, 20, promote_dtype=halved, rngs=rngs
  ),
}


class NoLayer(nnx.Module):
  """Holds a kernel, and is not called."""

  def __init__(self, rngs):
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), (12, 20)))


def test_a_kernel_without_a_layer_has_its_gradient():
  tapped, plain, args = tapped_and_plain(
    NoLayer(nnx.Rngs(0)),
    lambda model, x: jnp.mean((x @ model.kernel[...]) ** 2),
    INPUTS[0],
    target="kernel",
  )
  for ours, theirs in zip(
    jax.tree.leaves(tapped(*args)), jax.tree.leaves(plain(*args)), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("sampler", ["stratified", "neuron"])
@pytest.mark.parametrize("name", CHANGING)
def test_layers_that_change_their_kernel_first(name, sampler):
  model = CHANGING[name](nnx.Rngs(0))
  tapped, plain, args = tapped_and_plain(
    model, square, INPUTS[0], sampler=sampler, target="kernel"
  )
  leaves = [jax.tree.leaves(of(*args)) for of in (tapped, plain)]
  for ours, theirs in zip(*leaves, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
  assert max(np.abs(leaf).max() for leaf in leaves[0]) > 0


@pytest.mark.parametrize("remat", tried([False, True], lambda remat: remat))
def test_neurons_of_a_vision_transformer(remat):
  config = clip.VisionConfig.vit(
    image_size=16, patch_size=4, width=32, depth=1, heads=2, mlp_width=64,
    activation="quick_gelu", num_classes=5, remat=remat,
  )  # fmt: skip
  pixels = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
  tapped, plain, args = tapped_and_plain(
    filled(lambda: clip.ViT(config, rngs=nnx.Rngs(0))),
    square,
    pixels,
    sampler="neuron",
    target=gx.VIT_RULES,
  )
  shapes = ((32, 32), (32, 64), (64, 32))
  assert count_dense_gradients(plain, args, *shapes) == 6
  assert count_dense_gradients(tapped, args, *shapes) == 0
  saved = compare(tapped, plain, args)
  # A multiplication and an addition per token and weight that does not train,
  # less what indexing takes at so small a size.
  tokens, weights = 4 * 17, 4 * 32 * 32 + 2 * 32 * 64
  assert saved > 0.8 * (2 * tokens * weights * 0.7)


@pytest.mark.parametrize(
  "shape",
  [(12,), pytest.param((60, 12), marks=EXHAUSTIVE), (6, 10, 12)],
)
def test_neurons_of_linear_layers(shape):
  x = jax.random.normal(jax.random.key(1), shape)
  tapped, plain, args = tapped_and_plain(
    Network(nnx.Rngs(0)), square, x, sampler="neuron", target="kernel"
  )
  assert count_dense_gradients(plain, args, (12, 20), (20, 3)) == 2
  assert count_dense_gradients(tapped, args, (12, 20), (20, 3)) == 0
  saved = compare(tapped, plain, args)
  if len(shape) > 1:  # the gradient of one vector is no matrix product
    # 8 of 12 rows do not train, and 14 of 20.
    expected = 2 * 60 * (8 * 20 + 14 * 3)
    # XLA counts elementwise work too, and the plain step does some of it twice.
    assert saved == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize(
  ("sampler", "residual"),
  tried(
    [
      ("stratified", "reset"),
      ("uniform", "reset"),
      ("bernoulli", "reset"),
      ("neuron", "keep"),
    ],
    lambda sampler, _: sampler in ("bernoulli", "neuron"),
  ),
)
def test_other_masks_of_linear_layers(sampler, residual):
  """In a vmap: per example the layers see vectors."""
  x = jax.random.normal(jax.random.key(1), (2, 6, 12))
  by_example = lambda model, x: square(jax.vmap(jax.vmap(model)), x)
  model, settings = Network(nnx.Rngs(0)), {"sampler": sampler}
  settings["residual"] = residual
  compare(*tapped_and_plain(model, by_example, x, **settings))


@pytest.mark.parametrize(
  ("sampler", "param_dtype"),
  every_value(["stratified", "neuron"], [jnp.float32, jnp.bfloat16]),
)
def test_bfloat16_products(sampler, param_dtype):
  """A narrow gradient is divided by s in float32, as `gmixout` does."""
  layer = nnx.Linear(
    12, 20, dtype=jnp.bfloat16, param_dtype=param_dtype, rngs=nnx.Rngs(0)
  )
  of = lambda model, x: jnp.sum(jnp.square(model(x).astype(jnp.float32)))
  tapped, plain, args = tapped_and_plain(
    layer, of, INPUTS[0], sampler=sampler, target=None
  )
  assert jax.eval_shape(tapped, *args)["kernel"].dtype == jnp.float32
  compare(tapped, plain, args, rtol=1e-6)


@pytest.mark.optimized
@pytest.mark.parametrize(
  ("sampler", "most"),
  # 6 of 1 MiB each. One at a time is for the stratified mask to gather from;
  # with whole neurons there is none.
  tried(
    [("stratified", 6 / 2), ("neuron", 1 / 4)],
    lambda sampler, _: sampler == "neuron",
  ),
)
def test_no_more_than_a_few_dense_gradients_are_in_memory(sampler, most):
  class Deep(nnx.Module):
    def __init__(self, rngs):
      make = functools.partial(nnx.Linear, 512, 512, use_bias=False, rngs=rngs)
      self.layers = nnx.List([make() for _ in range(6)])

    def __call__(self, x):
      for layer in self.layers:
        x = jnp.tanh(layer(x))
      return x

  model = nnx.eval_shape(lambda: Deep(nnx.Rngs(0)))
  x = jax.ShapeDtypeStruct((4, 512), jnp.float32)
  graphdef, mixed, rest = gx.nnx.split(
    model, sampler=sampler, sparsity=0.9, key=0
  )

  def gradients(mixed, rest, x):
    of = lambda t: square(gx.nnx.merge(graphdef, mixed, t, rest), x)
    return jax.grad(of)(mixed.trainable())

  compiled = jax.jit(gradients).lower(mixed, rest, x).compile()
  memory: Any = compiled.memory_analysis()
  assert memory.temp_size_in_bytes < most * 2**20
  assert memory.output_size_in_bytes < 0.65 * 2**20


def test_neurons_of_a_layer_in_three_places():
  class Tied(nnx.Module):
    def __init__(self, rngs):
      self.first = nnx.Linear(12, 12, rngs=rngs)
      self.second = self.first
      self.third = nnx.Linear(12, 12, rngs=rngs)
      self.third.kernel = self.first.kernel

    def __call__(self, x):
      x = self.second(jnp.tanh(self.first(x)))
      return self.third(jnp.tanh(x)) @ self.first.kernel[...].T

  model = Tied(nnx.Rngs(0))
  compare(
    *tapped_and_plain(model, square, INPUTS[0], sampler="neuron", target=None)
  )


class Attention(nnx.Module):
  """Kernels of three axes, and one that contracts axes that are not last."""

  def __init__(self, rngs):
    self.attention = nnx.MultiHeadAttention(
      3, 12, 18, use_bias=False, decode=False, rngs=rngs
    )
    self.mixing = nnx.LinearGeneral((5, 4), (5, 2), axis=(-3, -1), rngs=rngs)

  def __call__(self, x):
    x = jnp.tanh(self.attention(x))
    x = x.reshape(*x.shape[:-1], 3, 4)
    return self.mixing(x)


def test_neurons_of_layers_with_several_axes():
  x = jax.random.normal(jax.random.key(1), (30, 5, 12))
  tapped, plain, args = tapped_and_plain(
    filled(lambda: Attention(nnx.Rngs(0))),
    square,
    x,
    sampler="neuron",
    target="kernel",
  )
  shapes = ((12, 3, 6), (3, 6, 12), (5, 4, 5, 2))
  assert count_dense_gradients(plain, args, *shapes) == 5
  assert count_dense_gradients(tapped, args, *shapes) == 0
  saved = compare(tapped, plain, args)
  # Of 12 inputs 8 do not train, of 18 13, of 20 14.
  expected = 2 * 150 * (3 * 8 * 18 + 13 * 12) + 2 * 90 * 14 * 10
  assert saved == pytest.approx(expected, rel=0.25)


def test_what_is_kept_of_the_inputs_of_layers_with_several_axes():
  graphdef, mixed, rest = gx.nnx.split(
    filled(lambda: Attention(nnx.Rngs(0))),
    sampler="neuron",
    **KERNELS,
  )
  x = jax.random.normal(jax.random.key(1), (30, 5, 12))
  kept = kept_shapes(
    lambda t: square(gx.nnx.merge(graphdef, mixed, t, rest), x),
    mixed.trainable(),
  )
  dense = kept_shapes(
    lambda p: square(nnx.merge(graphdef, p, rest, copy=True), x), mixed.params
  )
  assert dense.count((30, 5, 12)) == 2  # the input, and tanh to its derivative
  assert kept.count((30, 5, 12)) == 1
  assert kept.count((30, 5, 4)) == 3  # of query, key and value
  assert (30, 5, 3, 6) in dense
  assert kept.count((30, 5, 5)) == 1  # of what attention returns
  assert kept.count((30, 3, 6)) == 1  # of the mixing


# Layers that cannot take a tap into their product.


class Odd(nnx.Module):
  """One of each."""

  def __init__(self, rngs, calls):
    self.conv = nnx.Conv(3, 8, (3,), rngs=rngs)
    self.general = nnx.LinearGeneral(8, (2, 6), rngs=rngs)

    def own(*args, **options):
      calls.append(None)
      return 2 * jax.lax.dot_general(*args, **options)

    self.own = nnx.Linear(12, 12, dot_general=own, rngs=rngs)

    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def stack(rngs):
      return nnx.Linear(12, 12, rngs=rngs)

    self.stack = stack(rngs)

  def __call__(self, x):
    x = jnp.tanh(self.general(jnp.tanh(self.conv(x))))
    x = jnp.tanh(self.own(x.reshape(*x.shape[:-2], 12)))

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def run(x, layer):
      return jnp.tanh(layer(x))

    return run(x, self.stack)


@pytest.mark.parametrize(
  ("sampler", "graph", "sizes"),
  [
    # Inputs that are kept, times their weights; or rows times what is kept of
    # each, where a row is as long as three tenths of it need.
    (
      "neuron",
      True,
      {
        "conv": 3 * 1 * 8,
        "general": 2 * 12,
        "own": 4 * 12,
        "stack": 3 * 4 * 12,
      },
    ),
    (
      "stratified",
      False,
      {"conv": 3 * 7, "general": 29, "own": 43, "stack": 3 * 43},
    ),
  ],
)
def test_other_layers_give_the_gradients_of_their_weights(
  sampler, graph, sizes
):
  calls = []
  x = jax.random.normal(jax.random.key(1), (4, 6, 3))
  with nnx.set_graph_mode(graph):
    graphdef, mixed, rest = gx.nnx.split(
      filled(lambda: Odd(nnx.Rngs(0), calls)),
      sampler=sampler,
      **EVERYTHING,
    )

    @jit
    def gradients(mixed, rest, x):
      of = lambda t: square(gx.nnx.merge(graphdef, mixed, t, rest), x)
      packed = jax.grad(of)(mixed.trainable())
      assert len(calls) == 1  # the layer's own product, as ever
      of = lambda p: square(nnx.merge(graphdef, p, rest, copy=True), x)
      return packed, jax.grad(of)(mixed.params), mixed.masks()

    packed, dense, mask = jax.device_get(gradients(mixed, rest, x))

  def check(packed, dense, mask):
    if dense.shape != packed.shape:
      # Packed entries stand in the order that they have in the leaf.
      dense, packed = dense[mask] / mask.mean(), packed.ravel()
    np.testing.assert_allclose(packed, dense, rtol=1e-4, atol=1e-6)
    assert packed.any()

  jax.tree.map(check, packed, dense, mask)
  kernels = {name: layer["kernel"].size for name, layer in packed.items()}
  assert kernels == sizes
