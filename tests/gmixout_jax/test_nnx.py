"""Tests `gmixout_jax/nnx.py`: modules train as with `nnx.Optimizer`.

The references are `nnx.Optimizer` around `gmixout`. For the taps inside of
layers see `test_nnx_taps.py`.
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
from gmixout_jax._core import step as steps
from tests.combinations import tried
from tests.gmixout_jax.compiling import jit
from tests.gmixout_jax.nnx_network import INPUTS, SETTINGS, STEPS, Network

pytestmark = pytest.mark.slow

SAMPLERS = ("stratified", "uniform", "bernoulli", "neuron")
# SGD, as Adam blows up rounding errors wherever a gradient is all but zero.
INNER = optax.sgd(0.05, momentum=0.9)

close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


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
        after = nnx.state(model, nnx.Any(nnx.BatchStat, nnx.RngState))
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
  ("sampler", "graph"),
  tried([("stratified", True), ("neuron", False)], lambda _, graph: graph),
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
    evaluated = nnx.jit(lambda model, o: o.eval_model(model))(model, optimizer)
  expected = gx.gmixout_eval_params(
    reference(NoisyNetwork, sampler)[1], nnx.state(model, nnx.Param)
  )
  jax.tree.map(close, pure(evaluated), nnx.to_pure_dict(expected))
  trained = pure(model)["blocks"][0]["kernel"]
  assert np.abs(pure(evaluated)["blocks"][0]["kernel"] - trained).max() > 1e-2
  evaluated(INPUTS[0])
  now = pure(model, nnx.Not(nnx.Param))
  jax.tree.map(np.testing.assert_array_equal, bits(now), bits(other))
  after = pure(evaluated, nnx.Not(nnx.Param))
  assert int(after["dropout"]["rngs"]["count"]) == STEPS + 1


class Handed(Network):
  """One that is handed its randomness."""

  def __call__(self, x, rngs):  # pyright: ignore
    keep = jax.random.bernoulli(rngs.dropout(), 0.8, x.shape)
    return super().__call__(jnp.where(keep, x, 0))


def handed_loss(model, x, rngs, *, others):
  """Changes all that it is handed, and adds a loss of another module."""
  out = model(x, rngs)
  value = jnp.mean((out - jnp.tanh(x[:, :3])) ** 2)
  value = value + jnp.mean(others["layer"](x) ** 2)
  others["metric"].update(values=value)
  others["seen"].count[...] += 1
  return value, out


class Seen(nnx.Module):
  def __init__(self):
    self.count = nnx.Variable(jnp.zeros((), jnp.int32))


@pytest.mark.parametrize(
  ("graph", "shared"),
  tried(
    [(True, True), (True, False), (False, False)],
    lambda graph, shared: graph == shared,
  ),
)
def test_a_loss_may_be_handed_any_nnx_object(graph, shared):
  """As by `nnx.value_and_grad`; and to one that shares the model's layers."""

  def train(mixed):
    model, rngs = Handed(nnx.Rngs(0)), nnx.Rngs(7)
    layer = nnx.Linear(12, 4, rngs=nnx.Rngs(1))
    others = {
      "metric": nnx.metrics.Average(),
      "seen": Seen(),
      "layer": model.blocks[0] if shared else layer,
    }
    if mixed:
      optimizer = gx.nnx.MixedOptimizer(
        model, INNER, sampler="neuron", **SETTINGS
      )
    else:
      tx = gx.gmixout(INNER, sampler="neuron", **SETTINGS)
      optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    values = []

    def reference(model, x, rngs, others):
      if shared:  # nnx.value_and_grad takes no variable twice
        others = others | {"layer": model.blocks[0]}
      return handed_loss(model, x, rngs, others=others)

    @nnx.jit
    def step(model, optimizer, x, rngs, others):
      if mixed:
        of = optimizer.value_and_grad(handed_loss, has_aux=True)
        (value, out), grads = of(model, x, rngs, others=others)
      else:
        others = others | {"layer": None} if shared else others
        of = nnx.value_and_grad(reference, has_aux=True)
        (value, out), grads = of(model, x, rngs, others)
      optimizer.update(model, grads)
      return value, out

    for x in INPUTS:
      values.append(step(model, optimizer, x, rngs, others))
    assert int(rngs.dropout.count[...]) == STEPS
    assert int(others["seen"].count[...]) == STEPS
    average = others["metric"].compute()
    np.testing.assert_allclose(average, np.mean([v for v, _ in values]), 1e-5)
    assert model.blocks[0].dot_general is jax.lax.dot_general
    return pure(model), values

  with nnx.set_graph_mode(graph):
    found, expected = train(True), train(False)
  jax.tree.map(close, found, expected)
  start = pure(Handed(nnx.Rngs(0)))["blocks"][0]["kernel"]
  assert np.abs(found[0]["blocks"][0]["kernel"] - start).max() > 1e-2


def test_masks_are_drawn_once_in_each_call(monkeypatch):
  """And residuals read off once, by the gradient and by the update."""
  begun = []
  begin = steps.begin

  def counted(*args):
    begun.append(None)
    return begin(*args)

  monkeypatch.setattr(steps, "begin", counted)
  model = Network(nnx.Rngs(0))
  optimizer = gx.nnx.MixedOptimizer(model, INNER, **SETTINGS)
  begun.clear()

  @nnx.jit
  def step(model, optimizer, x):
    _, grads = optimizer.value_and_grad(loss)(model, x)
    assert len(begun) == 1
    optimizer.update(model, grads)
    assert len(begun) == 2

  step(model, optimizer, INPUTS[0])
  assert len(begun) == 2


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


def accumulating(tx=MULTI_STEPS):
  model = Network(nnx.Rngs(0))
  return model, gx.nnx.MixedOptimizer(
    model, tx, sampler="stratified", **SETTINGS
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
  """As when no micro batch has been taken since the last step.

  MultiSteps is in a chain here, which hides its state.
  """
  chain = optax.chain(optax.identity(), MULTI_STEPS.gradient_transformation())
  model, optimizer = accumulating(chain)
  for x in (INPUTS[0] * jnp.nan, INPUTS[0], INPUTS[0], INPUTS[0] * jnp.inf):
    multi_step(model, optimizer, x)
  assert int(optimizer.opt_state[1].gradient_step[...]) == 1
  assert int(optimizer.mix.count[...]) == 1
