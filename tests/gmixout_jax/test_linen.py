"""Tests `gmixout_jax/linen.py`: any module trains, `TappedDot` saves work.

The references are `gmixout`, and taps on the weights for taps in products.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import gmixout_jax as gx
from tests.combinations import EXHAUSTIVE, tried
from tests.gmixout_jax.compiling import (
  compare,
  count_dense_gradients,
  count_written,
  jit,
)

pytestmark = pytest.mark.slow

STEPS = 5  # two episodes, and one step
SETTINGS: dict[str, Any] = {
  "sparsity": 0.7,
  "resample_every": 2,
  "key": 3,
  "target": "kernel",
}
# SGD, as Adam blows up rounding errors wherever a gradient is all but zero.
INNER = optax.sgd(0.05, momentum=0.9)
INPUTS = jax.random.normal(jax.random.key(0), (STEPS, 16, 12))

Tapped = functools.partial(nn.Dense, dot_general_cls=gx.linen.TappedDot)


class Network(nn.Module):
  """Two layers around a norm whose statistics are not parameters."""

  dense: Any = nn.Dense

  @nn.compact
  def __call__(self, x, train=True):
    x = nn.BatchNorm(use_running_average=not train)(jnp.tanh(x))
    x = jnp.tanh(self.dense(20)(x))
    return self.dense(3, use_bias=False)(x)


class Remat(nn.Module):
  """A layer under a lifted transformation, and one that is used twice."""

  @nn.compact
  def __call__(self, x):
    lifted = nn.remat(nn.Dense)(12, dot_general_cls=gx.linen.TappedDot)
    twice = Tapped(12)
    return twice(jnp.tanh(twice(jnp.tanh(lifted(x)))))


class Body(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    return jnp.tanh(Tapped(12)(x)), None


class Scanned(nn.Module):
  """Three layers in one array, or one layer three times."""

  lift: tuple[tuple[str, Any], ...]
  remat: bool = False

  @nn.compact
  def __call__(self, x):
    lift = dict(self.lift)
    split: Any = {"params": "variable_axes" in lift}
    body = nn.remat(Body) if self.remat else Body
    return nn.scan(body, length=3, split_rngs=split, **lift)()(x, None)[0]


def square(outputs):
  return jnp.mean(jnp.square(outputs.astype(jnp.float32)))


def init(module, x=INPUTS[0]):
  """Variables of some values. To initialize them, each shape is compiled."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  fill = lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)
  return jax.tree.map(fill, shapes)


def tapped_and_plain(module, x=INPUTS[0], **settings):
  """Gradients by taps in the products, and by taps on the weights.

  Returns:
    Two functions, and their arguments.
  """
  params = init(module, x)["params"]
  mixed = gx.MixedParams.create(params, **(SETTINGS | settings))

  def gradient(variables, mixed, x):
    of = lambda t: square(module.apply(variables(mixed, t), x))
    return jax.grad(of)(mixed.trainable())

  plain = lambda mixed, trainable: {"params": mixed.inject(trainable)}
  return (
    functools.partial(gradient, gx.linen.variables),
    functools.partial(gradient, plain),
    (mixed, x),
  )


# Other masks leave products alone, as a scan and a kernel of many axes show.
mostly_neurons = pytest.mark.parametrize(
  "sampler", tried(["stratified", "neuron"], lambda name: name == "neuron")
)
ONE_LAYER: dict[str, Any] = {"target": "Dense_0"}


@functools.cache
def reference():
  """Weights, statistics and deployed weights of `gmixout` on a network."""
  module = Network()
  tx = gx.gmixout(INNER, sampler="neuron", **(SETTINGS | ONE_LAYER))

  @jit
  def step(carry, x):
    params, stats, state = carry

    def loss(params):
      variables = {"params": params, "batch_stats": stats}
      out, new = module.apply(variables, x, mutable=["batch_stats"])
      return jnp.mean((out - jnp.tanh(x[:, :3])) ** 2), new["batch_stats"]

    grads, stats = jax.grad(loss, has_aux=True)(params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), stats, state

  variables = init(module)
  params = variables["params"]
  carry = params, variables["batch_stats"], tx.init(params)
  for x in INPUTS:
    carry = step(carry, x)
  params, stats, state = carry
  return params, stats, jit(gx.gmixout_eval_params)(state, params)


@pytest.mark.parametrize(
  "dense", [nn.Dense, Tapped], ids=["Dense", "with TappedDot"]
)
def test_it_trains_as_with_gmixout(dense):
  module = Network(dense)
  variables = init(module)

  @jit
  def step(carry, x):
    mixed, stats, state = carry

    def loss(trainable):
      variables = gx.linen.variables(mixed, trainable)
      variables["batch_stats"] = stats
      out, new = module.apply(variables, x, mutable=["batch_stats"])
      return jnp.mean((out - jnp.tanh(x[:, :3])) ** 2), new["batch_stats"]

    trainable = mixed.trainable()
    grads, stats = jax.grad(loss, has_aux=True)(trainable)
    updates, state = INNER.update(grads, state, trainable)
    return mixed.apply_updates(updates), stats, state

  mixed = gx.MixedParams.create(
    variables["params"], sampler="neuron", **(SETTINGS | ONE_LAYER)
  )
  state = jit(lambda mixed: INNER.init(mixed.trainable()))(mixed)
  carry = mixed, variables["batch_stats"], state
  for x in INPUTS:
    carry = step(carry, x)
  mixed, stats, _ = carry
  deployed = jit(lambda mixed: mixed.eval_params())(mixed)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, (mixed.params, stats, deployed), reference())
  kernel = lambda params: params["Dense_0"]["kernel"]
  moved = kernel(mixed.params) - kernel(variables["params"])
  assert np.abs(moved).max() > 1e-2
  assert np.abs(stats["BatchNorm_0"]["mean"]).max() > 1e-3


def test_a_tapped_dot_is_seen_by_nothing_but_taps():
  """The same variables at `init`, the same values and jaxpr where no tap is."""
  plain, tapped = Network(), Network(Tapped)
  key = jax.random.key(0)
  start = jax.jit(plain.init)(key, INPUTS[0])
  jax.tree.map(
    np.testing.assert_array_equal, jax.jit(tapped.init)(key, INPUTS[0]), start
  )
  evaluate = lambda module: str(
    jax.make_jaxpr(functools.partial(module.apply, train=False))(
      start, INPUTS[0]
    )
  )
  assert evaluate(tapped) == evaluate(plain)
  assert "dot_general" in evaluate(plain)


# Taps inside of layers.


@pytest.mark.parametrize(
  "shape",
  [(12,), pytest.param((60, 12), marks=EXHAUSTIVE), (6, 10, 12)],
)
def test_neurons_of_dense_layers(shape):
  class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
      return Tapped(3)(jnp.tanh(Tapped(20)(x)))

  x = jax.random.normal(jax.random.key(1), shape)
  tapped, plain, args = tapped_and_plain(Plain(), x, sampler="neuron")
  assert count_dense_gradients(plain, args, (12, 20), (20, 3)) == 2
  assert count_dense_gradients(tapped, args, (12, 20), (20, 3)) == 0
  saved = compare(tapped, plain, args)
  if len(shape) > 1:  # the gradient of one vector is no matrix product
    # 8 of 12 rows do not train, and 14 of 20.
    expected = 2 * 60 * (8 * 20 + 14 * 3)
    # XLA counts elementwise work too, and the plain step does some of it twice.
    assert saved == pytest.approx(expected, rel=0.25)


@mostly_neurons
def test_remat_and_a_layer_in_two_places(sampler):
  tapped, plain, args = tapped_and_plain(Remat(), sampler=sampler)
  compare(tapped, plain, args)
  assert "remat" in str(jax.make_jaxpr(tapped)(*args))
  if sampler == "neuron":
    assert count_dense_gradients(plain, args, (12, 12)) == 3
    assert count_dense_gradients(tapped, args, (12, 12)) == 0


# And how many dense gradients there are.
LIFTS = {
  # Each of three layers has a tap of its own, where the scan cuts the taps.
  "cut": ({"variable_axes": {"params": 0, "taps": 0}}, 0),
  "all": ({"variable_axes": {True: 0}}, 0),
  # Without them it is on all weights.
  "no taps": ({"variable_axes": {"params": 0}}, 1),
  "taps not cut": (
    {"variable_axes": {"params": 0}, "variable_broadcast": "taps"},
    1,
  ),
  # At another axis: `lio` is `ilo` then, and taps are cut at 0 as ever.
  "axis": ({"variable_axes": {"params": 1, "taps": 0}}, 0),
  # One layer has one tap, in its product where the scan lets it through.
  "shared": ({"variable_broadcast": "params"}, 1),
  "with taps": ({"variable_broadcast": ["params", "taps"]}, 0),
}


@pytest.mark.parametrize(
  ("lift", "sampler", "remat"),
  tried(
    itertools.product(LIFTS, ["neuron", "stratified"], [False, True]),
    lambda lift, sampler, remat: (
      (sampler == "neuron" and not remat)
      or (lift == "cut" and remat and sampler == "stratified")
    ),
  ),
)
def test_scan(lift, sampler, remat):
  lift, dense_gradients = LIFTS[lift]
  module = Scanned(tuple(lift.items()), remat)
  axes = gx.linen.axes(module, INPUTS[0])
  tapped, plain, args = tapped_and_plain(module, sampler=sampler, axes=axes)
  compare(tapped, plain, args)
  assert ("remat" in str(jax.make_jaxpr(tapped)(*args))) == remat
  if sampler == "neuron":
    found = count_dense_gradients(tapped, args, (12, 12))
    assert found == dense_gradients


@EXHAUSTIVE  # `test_nnx_stacks.py` looks at such a program
@pytest.mark.optimized
def test_no_stack_of_gradients_is_made_where_a_scan_cuts_taps():
  x = jax.random.normal(jax.random.key(1), (60, 12))
  module = Scanned((("variable_axes", {"params": 0, "taps": 0}),))
  tapped, plain, args = tapped_and_plain(
    module, x, sampler="neuron", axes=gx.linen.axes(module, x)
  )
  # XLA counts the body of a loop once; 8 of 12 inputs do not train.
  saved = compare(tapped, plain, args)
  assert saved == pytest.approx(2 * 60 * 8 * 12, rel=0.25)
  assert count_written(plain, args, (3, 12, 12))
  assert not count_written(tapped, args, (3, 12, 12))


class General(nn.Module):
  """A kernel of several axes."""

  features: int | tuple[int, ...]
  axis: int | tuple[int, ...]

  @nn.compact
  def __call__(self, x):
    return nn.DenseGeneral(
      self.features, self.axis, dot_general_cls=gx.linen.TappedDot
    )(x)


@pytest.mark.parametrize(
  ("kernel", "sampler"),
  tried(
    itertools.product(
      [
        ((4, 5), -1, (12, 4, 5)),
        (5, (-2, -1), (2, 12, 5)),
        ((4, 5), (0, 2), (8, 12, 4, 5)),
        (5, -2, (2, 5)),
      ],
      ["neuron", "stratified"],
    ),
    lambda kernel, sampler: sampler == "neuron" or len(kernel[2]) == 4,
  ),
)
def test_dense_general(kernel, sampler):
  features, axis, shape = kernel
  x = INPUTS[0].reshape(8, 2, 12)
  module = General(features, axis)
  axes = gx.linen.axes(module, x)
  settings = {"sampler": sampler, "axes": axes, "sparsity": 0.5}
  tapped, plain, args = tapped_and_plain(module, x, **settings)
  compare(tapped, plain, args)
  if sampler == "neuron":
    assert count_dense_gradients(plain, args, shape) == 1
    assert count_dense_gradients(tapped, args, shape) == 0


def test_neurons_of_attention():
  class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.MultiHeadDotProductAttention(
        3, qkv_features=18, use_bias=False,
        qkv_dot_general_cls=gx.linen.TappedDot,
        out_dot_general_cls=gx.linen.TappedDot,
      )(x)  # fmt: skip

  x = jax.random.normal(jax.random.key(1), (30, 5, 12))
  tapped, plain, args = tapped_and_plain(Attention(), x, sampler="neuron")
  shapes = ((12, 3, 6), (3, 6, 12))
  assert count_dense_gradients(plain, args, *shapes) == 4
  assert count_dense_gradients(tapped, args, *shapes) == 0
  saved = compare(tapped, plain, args)
  # Of 12 inputs 8 do not train, of 18 13.
  expected = 2 * 150 * (3 * 8 * 18 + 13 * 12)
  assert saved == pytest.approx(expected, rel=0.25)


@mostly_neurons
def test_bfloat16_products(sampler):
  """A narrow gradient is divided by s in float32."""
  module = Tapped(20, dtype=jnp.bfloat16)
  tapped, plain, args = tapped_and_plain(module, sampler=sampler)
  assert jax.eval_shape(tapped, *args)["kernel"].dtype == jnp.float32
  compare(tapped, plain, args, rtol=1e-6)


def test_a_tap_leaves_products_of_another_kind_to_the_weights():
  """The transposed kernel, parts of its inputs, another order, a batch axis."""

  class Products(nn.Module):
    @nn.compact
    def __call__(self, x):
      kernel = self.param("kernel", nn.initializers.ones, (12, 2, 6))
      dot = gx.linen.TappedDot(name="TappedDot_0")
      y = dot(x, kernel.reshape(12, 12), (((1,), (1,)), ((), ())))
      y = y + dot(x, kernel, (((1,), (0,)), ((), ()))).reshape(-1, 12)
      y = y.reshape(-1, 6, 2)
      y = dot(y, kernel, (((1, 2), (2, 1)), ((), ())))
      z = dot(y.reshape(-1, 2, 6), kernel, (((2,), (2,)), ((1,), (1,))))
      return y + z[0]

  for axes in ("iio", "ooi", "ioo"):
    tapped, plain, args = tapped_and_plain(
      Products(), sampler="neuron", axes=lambda path, leaf, axes=axes: axes
    )
    compare(tapped, plain, args)
