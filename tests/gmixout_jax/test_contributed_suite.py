"""Tests what Optax asks of the optimizers that are contributed to it.

For `gmixout`, `mixout` and `random_mask`, with every sampler. What is only a
matter of types is only traced.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding

import gmixout_jax as gx
from tests.combinations import every_value, tried
from tests.gmixout_jax.small_tree import SAMPLERS, types

MAKE = {
  "gmixout": functools.partial(gx.gmixout, key=0, sparsity=0.5),
  "mixout": functools.partial(gx.mixout, key=0, sparsity=0.5),
  "random_mask": functools.partial(gx.random_mask, key=0, sparsity=0.5),
}
AXES = {"parabola": "io", "pairs": "oi", "stack": "lio", "conv": "ssio"}
SHAPES = {
  "parabola": (4, 10), "pairs": (2, 6), "stack": (2, 3, 4),
  "conv": (2, 2, 3, 4), "vector": (5,), "scalar": (),
}  # fmt: skip
TARGET = {
  name: jax.random.uniform(jax.random.key(i), shape, minval=-1)
  for i, (name, shape) in enumerate(SHAPES.items())
}
TARGET["pairs"] = jnp.ones((2, 6))
START = jax.tree.map(lambda leaf: jnp.zeros_like(leaf), TARGET)

every_make = pytest.mark.parametrize("make", MAKE)


def axes(path, leaf):
  del leaf
  return AXES.get(path)


def transformation(make, sampler, inner=None):
  inner = optax.adam(0.02) if inner is None else inner
  return MAKE[make](inner, sampler=sampler, axes=axes)


def rosenbrock(pairs):
  x, y = pairs
  return jnp.sum(100 * jnp.square(y - jnp.square(x)) + jnp.square(1 - x))


def loss(params):
  """Parabolas of all shapes, and Rosenbrock's function of pairs."""
  squares = jax.tree.map(
    lambda w, t: jnp.sum(jnp.square(w - t)), params, TARGET
  )
  squares["pairs"] = rosenbrock(params["pairs"])
  return sum(jax.tree.leaves(squares))


@functools.partial(jax.jit, static_argnums=(0, 1))
def trained(tx, steps):
  """Training weights, state, and the mask of the first step."""

  def step(carry, _):
    params, state = carry
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return (optax.apply_updates(params, updates), state), None

  start = START, tx.init(START)
  (params, state), _ = jax.lax.scan(step, start, length=steps)
  first = gx.gmixout_masks(start[1], START)
  return params, gx.gmixout_eval_params(state, params), first


def close(actual, expected, atol=0.03):
  np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize(
  "sampler", tried(SAMPLERS, lambda name: name == "stratified")
)
def test_gmixout_converges(sampler):
  schedule = optax.cosine_decay_schedule(0.03, 8000)
  tx = transformation("gmixout", sampler, optax.adam(schedule))
  _, evaluated, _ = trained(tx, 8000)
  assert loss(START) > 10
  jax.tree.map(close, evaluated, TARGET)


@pytest.mark.slow
@pytest.mark.parametrize(
  "sampler", tried(["neuron", "bernoulli"], lambda name: name == "neuron")
)
def test_random_mask_converges_where_it_trains(sampler):
  tx = transformation("random_mask", sampler)
  training, evaluated, mask = trained(tx, 1000)
  jax.tree.map(np.testing.assert_array_equal, training, evaluated)
  for name in set(SHAPES) - {"pairs"}:
    active = np.asarray(mask[name])
    close(np.asarray(training[name])[active], np.asarray(TARGET[name])[active])
    np.testing.assert_array_equal(np.asarray(training[name])[~active], 0)
  assert 0.3 < np.mean(mask["parabola"]) < 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
  "sampler",
  tried(["stratified", "bernoulli"], lambda name: name == "bernoulli"),
)
def test_mixout_converges_to_the_mean_of_its_masks(sampler):
  """The minimum of E[(MΔ/s − t)²] is Δ = s·t: Mixout's pull to the start."""
  schedule = optax.cosine_decay_schedule(0.02, 4000)
  tx = transformation("mixout", sampler, optax.sgd(schedule))
  _, evaluated, mask = trained(tx, 4000)
  for name in set(AXES) - {"pairs"}:
    s = 0.5 if sampler == "bernoulli" else np.mean(mask[name])
    close(evaluated[name], s * TARGET[name], atol=0.05)
  close(evaluated["vector"], TARGET["vector"])


def shapes(dtype):
  return {n: jax.ShapeDtypeStruct(shape, dtype) for n, shape in SHAPES.items()}


@pytest.mark.parametrize(
  ("make", "sampler", "dtype"),
  every_value(MAKE, SAMPLERS, ["bfloat16", "float32", "float16", "float64"]),
)
def test_types(make, sampler, dtype):
  """Under cond, which refuses a state that changes its type or structure."""
  with jax.enable_x64(dtype == "float64"):
    tx, params = transformation(make, sampler), shapes(dtype)
    state = jax.eval_shape(tx.init, params)

    def step(grads, state, params):
      return jax.lax.cond(
        state.count % 2 == 0,
        lambda: tx.update(grads, state, params),
        lambda: (jax.tree.map(jnp.zeros_like, params), state),
      )

    updates, after = jax.eval_shape(step, params, state, params)
    assert types(updates) == types(params)
    # Also weak types, so that a second step is not compiled again.
    assert types(after) == types(state)
    concrete = types(tx.init(jax.tree.map(jnp.ones_like, params)))
    assert concrete == types(state) == types(tx.init(params))
    wide = jnp.promote_types(dtype, jnp.float32)
    for memory in (after.anchor, after.learned, after.inner_state[0].mu):
      for leaf in jax.tree.leaves(memory):
        assert leaf.dtype == wide


@pytest.mark.slow
@pytest.mark.parametrize("make", tried(MAKE, lambda make: make == "gmixout"))
def test_two_steps_compile_once(make):
  tx, compiled = transformation(make, "stratified"), []

  @jax.jit
  def step(params, state):
    compiled.append(None)
    updates, state = tx.update(params, state, params)
    return optax.apply_updates(params, updates), state

  params, state = START, tx.init(START)
  for _ in range(3):
    params, state = step(params, state)
  assert len(compiled) == step._cache_size() == 1


@pytest.mark.parametrize(("make", "sampler"), every_value(MAKE, SAMPLERS))
def test_extra_arguments_are_accepted(make, sampler):
  tx, params = transformation(make, sampler), shapes("float32")
  for wrapped in (
    tx,
    optax.chain(optax.clip(1.0), tx),
    optax.MultiSteps(tx, 2),
    optax.masked(tx, {name: name != "scalar" for name in SHAPES}),
  ):
    state = jax.eval_shape(wrapped.init, params)
    update = functools.partial(wrapped.update, value=1.0, surprise=object())
    updates, after = jax.eval_shape(update, params, state, params)
    assert types(updates) == types(params)
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize(("make", "sampler"), every_value(MAKE, SAMPLERS))
def test_map_params(make, sampler):
  """It reaches what is like the parameters, through MultiSteps too."""
  tx = transformation(make, sampler)
  multi = optax.MultiSteps(tx, 4).gradient_transformation()
  state = jax.eval_shape(multi.init, shapes("float32"))
  seen = []
  mapped = optax.tree.map_params(
    multi, lambda leaf: seen.append(leaf), state,
    transform_non_params=lambda leaf: "other",
  )  # fmt: skip
  inner = mapped.inner_opt_state
  assert inner.count == inner.key == "other"
  # Anchor and two moments, Δ's memory where there is one, and the sum of
  # gradients.
  dense = len(SHAPES)
  learned = len(AXES) if make == "mixout" else 0
  assert len(seen) == len(AXES) + learned + 2 * dense + dense


STATIC = ("sparsity", "resample_every", "axes")


@pytest.mark.slow
@pytest.mark.parametrize("make", tried(MAKE, lambda make: make == "gmixout"))
def test_injected_hyperparameters_change_nothing(make):
  factory = optax.inject_hyperparams(
    MAKE[make].func,
    static_args=[
      a for a in STATIC if make == "gmixout" or a != "resample_every"
    ],
  )
  given = {"sparsity": 0.5, "axes": axes, "sampler": "neuron"}
  tx = MAKE[make].func(optax.adam(0.1), key=0, **given)
  key = jax.random.key_data(jax.random.key(0))
  injected = factory(optax.adam(0.1), key=key, **given)

  @functools.partial(jax.jit, static_argnums=0)
  def run(tx):
    params, state, said = START, tx.init(START), []
    for _ in range(3):
      updates, state = tx.update(jax.grad(loss)(params), state, params)
      params = optax.apply_updates(params, updates)
      said.append(updates)
    return said, state

  said, state = run(tx)
  other, injected_state = run(injected)
  equal = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
  jax.tree.map(equal, (said, state), (other, injected_state.inner_state))


@pytest.mark.parametrize(
  ("make", "sampler", "spec"),
  every_value(["mixout", "random_mask"], SAMPLERS, [("x",), (None, None, "x")]),
)
def test_types_on_an_explicit_mesh(make, sampler, spec):
  mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
  tx = MAKE[make](optax.adam(0.1), sampler=sampler, axes=lambda *_: "lio")
  with jax.set_mesh(mesh):
    params = jax.ShapeDtypeStruct(
      (8, 8, 16), jnp.bfloat16, sharding=NamedSharding(mesh, jax.P(*spec))
    )
    state = tx.init(params)
    updates, after = jax.eval_shape(tx.update, params, state, params)
    # Of what is no input a trace alone does not tell the mesh.
    after = dataclasses.replace(after, anchor_decay=state.anchor_decay)
    assert types(after) == types(state)
    assert types(updates) == types(params)
