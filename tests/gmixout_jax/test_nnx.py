"""Tests `gmixout_jax/nnx.py`: modules train as with `nnx.Optimizer`.

The references are `nnx.Optimizer` around `gmixout`, `jax.grad` of the dense
weights, and, for taps inside of layers, taps on the weights.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gmixout_jax as gx
from gmixout_jax import clip
from tests.gmixout_jax.compiling import compare, count_dense_gradients, jit

pytestmark = pytest.mark.slow

SAMPLERS = ("stratified", "uniform", "bernoulli", "neuron")
STEPS = 5  # two episodes, and one step
SETTINGS: dict[str, Any] = {
  "sparsity": 0.7,
  "resample_every": 2,
  "key": 3,
  "target": "blocks",
}
# SGD, as Adam blows up rounding errors wherever a gradient is all but zero.
INNER = optax.sgd(0.05, momentum=0.9)
INPUTS = jax.random.normal(jax.random.key(0), (STEPS, 16, 12))

close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


class Network(nnx.Module):
  """Blocks that are mixed, and a head that is not."""

  def __init__(self, rngs):
    self.blocks = nnx.List([nnx.Linear(12, 20, rngs=rngs)])
    self.head = nnx.Linear(20, 3, rngs=rngs)

  def __call__(self, x):
    for block in self.blocks:
      x = jnp.tanh(block(x))
    return self.head(x)


class NoisyNetwork(Network):
  """One that changes two kinds of state of its own as it runs."""

  def __init__(self, rngs):
    super().__init__(rngs)
    self.norm = nnx.BatchNorm(12, rngs=rngs)
    self.dropout = nnx.Dropout(0.2, rngs=rngs)

  def __call__(self, x):
    return super().__call__(self.dropout(self.norm(x)))


def loss(model, x):
  return jnp.mean((model(x) - jnp.tanh(x[:, :3])) ** 2)


def pure(model, what: Any = nnx.Param):
  return nnx.to_pure_dict(nnx.state(model, what))


def bits(tree):
  """Keys as their data, which can be compared."""
  is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
  return jax.tree.map(
    lambda x: jax.random.key_data(x) if is_key(x) else x, tree
  )


@functools.cache
def reference(network, sampler):
  """A model that `nnx.Optimizer` has trained with `gmixout`, and the latter."""
  with nnx.set_graph_mode(True):  # in tree mode it cannot take dropout's keys
    model = network(nnx.Rngs(0))
    tx = gx.gmixout(INNER, sampler=sampler, **SETTINGS)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    graphdef, state = nnx.split((model, optimizer))

    @jit
    def step(state, x):
      model, optimizer = nnx.merge(graphdef, state)
      optimizer.update(model, nnx.grad(loss)(model, x))
      return nnx.state((model, optimizer))

    for x in INPUTS:
      state = step(state, x)
    model, optimizer = nnx.merge(graphdef, state)
  return model, optimizer.opt_state


def assert_trained(params, other, network, sampler):
  """The same weights, and the same of all else that the model holds."""
  expected, _ = reference(network, sampler)
  jax.tree.map(close, params, pure(expected))
  others = pure(expected, nnx.Not(nnx.Param))
  jax.tree.map(close, bits(other), bits(others))
  start = pure(network(nnx.Rngs(0)))
  moved: Any = jax.tree.map(lambda one, two: np.abs(one - two), params, start)
  assert moved["blocks"][0]["kernel"].max() > 1e-2
  assert moved["head"]["bias"].max() > 1e-2
  if network is NoisyNetwork:
    assert int(other["dropout"]["rngs"]["count"]) == STEPS
    assert np.abs(other["norm"]["mean"]).max() > 1e-2


# Training.


@pytest.mark.parametrize(
  ("sampler", "graph"), [("neuron", True), ("stratified", False)]
)
def test_split_and_merge_train_as_nnx_optimizer(sampler, graph):
  with nnx.set_graph_mode(graph):
    graphdef, mixed, rest = gx.nnx.split(
      NoisyNetwork(nnx.Rngs(0)), sampler=sampler, **SETTINGS
    )

    @jit
    def step(carry, x):
      mixed, state, rest = carry

      def tapped_loss(trainable):
        model = gx.nnx.merge(graphdef, mixed, trainable, rest)
        value = loss(model, x)
        *_, after = nnx.split(model, nnx.Param, gx.nnx.TapVariable, ...)
        return value, nnx.to_pure_dict(after)

      trainable = mixed.trainable()
      grads, rest = jax.grad(tapped_loss, has_aux=True)(trainable)
      updates, state = INNER.update(grads, state, trainable)
      return mixed.apply_updates(updates), state, rest

    rest = nnx.to_pure_dict(rest)
    carry = mixed, jit(lambda m: INNER.init(m.trainable()))(mixed), rest
    for x in INPUTS:
      carry = step(carry, x)
    mixed, _, rest = carry
    assert_trained(mixed.params, rest, NoisyNetwork, sampler)
    # What is left is a model of the user's own kind.
    model = nnx.merge(graphdef, mixed.params, rest)
    assert model.head.dot_general is jax.lax.dot_general


@pytest.mark.parametrize(
  ("sampler", "graph"), [("stratified", True), ("neuron", False)]
)
def test_mixed_optimizer_trains_as_nnx_optimizer(sampler, graph):
  traces, value, grads = [], None, None
  with nnx.set_graph_mode(graph):
    model = NoisyNetwork(nnx.Rngs(0))
    optimizer = gx.nnx.MixedOptimizer(model, INNER, sampler=sampler, **SETTINGS)

    @nnx.jit
    def step(model, optimizer, x):
      traces.append(None)
      value, grads = optimizer.value_and_grad(loss)(model, x)
      optimizer.update(model, grads)
      return value, grads

    for x in INPUTS:
      value, grads = step(model, optimizer, x)
    assert len(traces) == 1
    other = pure(model, nnx.Not(nnx.Param))
    assert_trained(pure(model), other, NoisyNetwork, sampler)
    assert value is not None
    assert 0 < value < 5
    assert grads is not None
    shape = grads["blocks"][0]["kernel"].shape
    assert shape == {"stratified": (12, 6), "neuron": (4, 20)}[sampler]

    # The weights to deploy, in a copy that has a life of its own.
    deployed = nnx.jit(lambda model, o: o.eval_model(model))(model, optimizer)
  expected = gx.gmixout_eval_params(
    reference(NoisyNetwork, sampler)[1], nnx.state(model, nnx.Param)
  )
  jax.tree.map(close, pure(deployed), nnx.to_pure_dict(expected))
  live = pure(model)["blocks"][0]["kernel"]
  assert np.abs(pure(deployed)["blocks"][0]["kernel"] - live).max() > 1e-2
  deployed(INPUTS[0])
  now = pure(model, nnx.Not(nnx.Param))
  jax.tree.map(np.testing.assert_array_equal, bits(now), bits(other))
  after = pure(deployed, nnx.Not(nnx.Param))
  assert int(after["dropout"]["rngs"]["count"]) == STEPS + 1


MULTI_STEPS: Any = optax.MultiSteps(
  INNER, every_k_schedule=2, should_skip_update_fn=optax.skip_not_finite
)


@nnx.jit
def multi_step(model, optimizer, x):
  def with_aux(model, x, *, scale):
    return scale * loss(model, x), {"outputs": model(x)}

  of = optimizer.value_and_grad(with_aux, has_aux=True)
  (value, aux), grads = of(model, x, scale=1.0)
  optimizer.update(model, grads)
  return value, aux


def accumulating():
  model = Network(nnx.Rngs(0))
  return model, gx.nnx.MixedOptimizer(
    model, MULTI_STEPS, sampler="stratified", **SETTINGS
  )


def test_multi_steps_and_auxiliary_output():
  model, optimizer = accumulating()
  for x in INPUTS:
    before = pure(model)
    value, aux = multi_step(model, optimizer, x)
    jax.tree.map(np.testing.assert_array_equal, pure(model), before)
    expected = np.mean((aux["outputs"] - np.tanh(x[:, :3])) ** 2)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    multi_step(model, optimizer, x)
  # Twice each batch is each batch, and episodes count them so.
  assert int(optimizer.mix.count[...]) == STEPS
  assert_trained(pure(model), {}, Network, "stratified")


def test_what_multi_steps_skips_is_no_step_of_an_episode():
  """As when no micro batch has been taken since the last step."""
  model, optimizer = accumulating()
  for x in (INPUTS[0] * jnp.nan, INPUTS[0], INPUTS[0], INPUTS[0] * jnp.inf):
    multi_step(model, optimizer, x)
  assert int(optimizer.opt_state.gradient_step[...]) == 1
  assert int(optimizer.mix.count[...]) == 1


# Taps inside of layers.


def filled(make):
  """A model of some weights. To initialize one, each shape is compiled."""
  graphdef, state = nnx.split(nnx.eval_shape(make))
  rng = np.random.default_rng(0)
  fill = lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)
  return nnx.merge(graphdef, jax.tree.map(fill, state))


def tapped_and_plain(model, of, x, **settings):
  """Gradients by taps in the products, and by taps on the weights.

  Returns:
    Two functions, and their arguments. (Compilers do the work of closures.)
  """
  graphdef, mixed, rest = gx.nnx.split(model, **(SETTINGS | settings))

  def tapped(mixed, rest, x):
    merge = lambda t: gx.nnx.merge(graphdef, mixed, t, rest)
    return jax.grad(lambda t: of(merge(t), x))(mixed.trainable())

  def plain(mixed, rest, x):
    merge = lambda t: nnx.merge(graphdef, mixed.inject(t), rest, copy=True)
    return jax.grad(lambda t: of(merge(t), x))(mixed.trainable())

  return tapped, plain, (mixed, rest, x)


def square(model, x):
  return jnp.mean(jnp.square(model(x)))


@pytest.mark.parametrize("remat", [False, True])
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


@pytest.mark.parametrize("shape", [(12,), (60, 12), (6, 10, 12)])
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
  [*((s, "reset") for s in SAMPLERS[:3]), ("neuron", "keep")],
)
def test_other_masks_of_linear_layers(sampler, residual):
  """In a vmap: per example the layers see vectors."""
  x = jax.random.normal(jax.random.key(1), (2, 6, 12))
  by_example = lambda model, x: square(jax.vmap(jax.vmap(model)), x)
  model, settings = Network(nnx.Rngs(0)), {"sampler": sampler}
  settings["residual"] = residual
  compare(*tapped_and_plain(model, by_example, x, **settings))


@pytest.mark.parametrize("sampler", ["stratified", "neuron"])
@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16])
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
  # 12 of 1 MiB each. One at a time is for the stratified mask to gather from;
  # with whole neurons there is none.
  [("stratified", 12 / 2), ("neuron", 1 / 4)],
)
def test_no_more_than_a_few_dense_gradients_are_in_memory(sampler, most):
  class Deep(nnx.Module):
    def __init__(self, rngs):
      make = functools.partial(nnx.Linear, 512, 512, use_bias=False, rngs=rngs)
      self.layers = nnx.List([make() for _ in range(12)])

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
  assert memory.output_size_in_bytes < 1.3 * 2**20


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
    # Rows that are kept, times columns; or rows times columns that are kept.
    (
      "neuron",
      True,
      {"conv": 3 * 8, "general": 5 * 6, "own": 4 * 12, "stack": 11 * 12},
    ),
    (
      "stratified",
      False,
      {"conv": 9 * 2, "general": 16 * 2, "own": 12 * 4, "stack": 36 * 4},
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
      **(SETTINGS | {"target": None}),
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
      kept = {"neuron": (-1,), "stratified": dense.shape[:-1]}[sampler]
      shape = (*kept, packed.shape[-1])
      dense = (dense[mask] / mask.mean()).reshape(shape)
    np.testing.assert_allclose(packed, dense, rtol=1e-4, atol=1e-6)
    assert packed.any()

  jax.tree.map(check, packed, dense, mask)
  kernels = {name: layer["kernel"].size for name, layer in packed.items()}
  assert kernels == sizes
