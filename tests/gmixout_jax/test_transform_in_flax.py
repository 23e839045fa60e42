"""Tests `gmixout_jax/transform.py` inside NNX and Linen training loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import gmixout_jax as gx
from tests.combinations import every_value

pytestmark = pytest.mark.slow

# SGD, as Adam blows up rounding errors wherever a gradient is all but zero.
make = functools.partial(
  gx.gmixout,
  optax.sgd(0.01, momentum=0.9),
  sparsity=0.75,
  resample_every=2,
  key=0,
)
INPUTS = jnp.linspace(-1, 1, 32).reshape(4, 8)
TARGETS = jnp.ones((4, 3))


class Model(nnx.Module):
  def __init__(self, rngs):
    self.blocks = nnx.List([nnx.Linear(8, 16, rngs=rngs)])
    self.norm = nnx.BatchNorm(16, rngs=rngs)
    self.head = nnx.Linear(16, 3, rngs=rngs)

  def __call__(self, x):
    for block in self.blocks:
      x = jnp.tanh(block(x))
    return self.head(self.norm(x))


def nnx_loss(model):
  return jnp.mean((model(INPUTS) - TARGETS) ** 2)


def partitioned():
  return optax.partition(
    {
      "mixed": make(),
      "dense": optax.sgd(0.01),
      "frozen": optax.set_to_zero(),
    },
    gx.gmixout_labels,
  )


def train_nnx(tx, steps, graph):
  with nnx.set_graph_mode(graph):
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
      optimizer.update(model, nnx.grad(nnx_loss)(model))

    for _ in range(steps):
      if graph:
        step(model, optimizer)
      else:
        # In tree mode a jitted function returns what it changes.
        optimizer.update(model, nnx.grad(nnx_loss)(model))
    return model, optimizer


@pytest.mark.parametrize(
  ("graph", "build"), every_value([True, False], [make, partitioned])
)
def test_nnx_optimizer_follows_plain_optax(graph, build):
  model, optimizer = train_nnx(build(), 5, graph)
  tx = build()
  graphdef, params, rest = nnx.split(Model(nnx.Rngs(0)), nnx.Param, ...)
  params = nnx.to_pure_dict(params)
  rest = nnx.to_pure_dict(rest)
  state = tx.init(params)

  @jax.jit
  def step(params, rest, state):
    def loss(params):
      module = nnx.merge(graphdef, nnx.State(params), nnx.State(rest))
      value = nnx_loss(module)
      return value, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))

    grads, rest = jax.grad(loss, has_aux=True)(params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), rest, state

  for _ in range(5):
    params, rest, state = step(params, rest, state)
  theirs = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, theirs, params)
  evaluated = gx.gmixout_eval_params(
    optimizer.opt_state, nnx.state(model, nnx.Param)
  )
  assert isinstance(evaluated, nnx.State)
  jax.tree.map(
    close, nnx.to_pure_dict(evaluated), gx.gmixout_eval_params(state, params)
  )
  masks = gx.gmixout_masks(optimizer.opt_state, nnx.state(model, nnx.Param))
  assert int(nnx.to_pure_dict(masks)["blocks"][0]["kernel"].sum()) == 8 * 4


def test_evaluation_weights_go_back_into_the_model():
  model, optimizer = train_nnx(make(), 3, graph=True)
  params = nnx.state(model, nnx.Param)
  before = model.head.kernel[...]
  nnx.update(model, gx.gmixout_eval_params(optimizer.opt_state, params))
  assert not np.array_equal(model.head.kernel[...], before)


def test_linen_train_state():
  class Network(linen.Module):
    @linen.compact
    def __call__(self, x):
      return linen.Dense(3)(jnp.tanh(linen.Dense(16)(x)))

  network = Network()
  params = network.init(jax.random.key(0), INPUTS)["params"]
  state = TrainState.create(apply_fn=network.apply, params=params, tx=make())

  def loss(params):
    return jnp.mean((network.apply({"params": params}, INPUTS) - TARGETS) ** 2)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state):
    return state.apply_gradients(grads=jax.grad(loss)(state.params))

  first = float(loss(params))
  for _ in range(60):
    state = step(state)
  evaluated = gx.gmixout_eval_params(state.opt_state, state.params)
  assert float(loss(evaluated)) < 0.5 * first
  masks = gx.gmixout_masks(state.opt_state, state.params)
  assert int(masks["Dense_1"]["kernel"].sum()) == 8 * 4
