"""Tests `_core/inner_optimizer.py` and `_core/held_weights.py`.

What each optimizer of Optax does is in `test_optax_table.py`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import gmixout_jax as gx
from gmixout_jax._core.held_weights import (
  RESTARTS,
  held_leaves,
  register_held_weights,
  restart_held_weights,
)
from gmixout_jax._core.inner_optimizer import restart_moments
from tests.combinations import every_value
from tests.gmixout_jax.small_tree import make, params_of, types

PARAMS = {"dense": jnp.arange(1.0, 4.0), "mixed": jnp.ones((2, 3))}
MIXED = {"dense": False, "mixed": True}
ALWAYS, NEVER = jnp.array(True), jnp.array(False)


class HoldsState(NamedTuple):
  """State of an optimizer that Optax does not have."""

  start: Any
  seen: Any


def holds(seen=lambda params: jnp.zeros(())):
  return optax.GradientTransformation(
    lambda params: HoldsState(params, seen(params)),
    lambda updates, state, params: (updates, state),
  )


@pytest.fixture
def known():
  """Registers `HoldsState` for one test."""
  yield functools.partial(register_held_weights, HoldsState)
  RESTARTS.pop(HoldsState)


def filled(state, value=7):
  """The state with `value` everywhere, to tell what has restarted."""
  return jax.tree.map(lambda leaf: jnp.full_like(leaf, value), state)


def restart(tx, state, when=ALWAYS, params=PARAMS, mixed=MIXED):
  return restart_held_weights(tx, state, params, mixed, when)


WRAPPERS = {
  "chain": lambda tx: optax.chain(optax.clip(1.0), tx),
  "named_chain": lambda tx: optax.named_chain(("one", tx)),
  "masked": lambda tx: optax.masked(tx, {"dense": True, "mixed": True}),
  "partition": lambda tx: optax.partition(
    {"a": tx, "b": optax.sgd(1.0)}, {"dense": "a", "mixed": "a"}
  ),
  "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
  "inject": lambda tx: optax.inject_hyperparams(lambda rate: tx)(rate=1.0),
  "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
  "extra": optax.with_extra_args_support,
  "flatten": optax.flatten,
}


@pytest.mark.parametrize("wrap", [None, *WRAPPERS])
def test_schedule_free_restarts_z_of_mixed_leaves_and_its_weight(wrap):
  """Whatever stands around it: the rest of the state goes on."""
  tx = contrib.schedule_free_adamw(0.1)
  tx = WRAPPERS[wrap](tx) if wrap else tx
  state = filled(tx.init(PARAMS))
  get = functools.partial(optax.tree.get, restart(tx, state))
  z, expected = get("z"), {"dense": np.full(3, 7), "mixed": np.zeros((2, 3))}
  if wrap == "flatten":
    expected = np.concatenate([leaf.ravel() for leaf in expected.values()])
  jax.tree.map(np.testing.assert_array_equal, z, expected)
  assert get("weight_sum") == 0
  assert get("max_lr") == get("step_count") == 7
  assert all((leaf == 7).all() for leaf in jax.tree.leaves(get("nu")))
  same = restart(tx, state, NEVER)
  jax.tree.map(np.testing.assert_array_equal, same, state)


@pytest.mark.parametrize(
  "tx", [optax.adamw(0.1), optax.sgd(0.1, 0.9), contrib.dadapt_adamw()]
)
def test_what_holds_no_weights_costs_no_equation(tx):
  jaxpr = jax.make_jaxpr(functools.partial(restart, tx))(tx.init(PARAMS))
  assert not jaxpr.jaxpr.eqns


@pytest.mark.parametrize("wrap", WRAPPERS.values())
def test_an_unknown_optimizer_that_holds_weights_is_refused(wrap):
  tx = wrap(holds())
  with pytest.raises(ValueError, match=r"register_held_weights.*weights"):
    jax.eval_shape(functools.partial(restart, tx), tx.init(PARAMS))
  with pytest.raises(ValueError, match=r"guides/optimizers\.md"):
    held_leaves(tx.init, jax.eval_shape(lambda: PARAMS), [False, True])


@pytest.mark.parametrize("moments", ["carry", "reset"])
def test_gmixout_refuses_it_at_init(moments):
  tx = make(holds(), moments=moments)
  with pytest.raises(ValueError, match=r"init copies or measures.*start"):
    tx.init(params_of())
  plain = gx.random_mask(holds(), key=0)  # never redraws
  plain.init(params_of())
  make(holds(), residual="keep").init(params_of())  # never empties


def test_only_values_of_mixed_leaves_count():
  by_shape = holds(lambda params: jax.tree.map(jnp.zeros_like, params))
  of_dense = optax.partition(
    {"held": holds(), "other": by_shape},
    {"dense": "held", "mixed": "other"},
  )
  with pytest.raises(ValueError, match="holds weights"):
    restart(of_dense, of_dense.init(PARAMS))  # by_shape holds `start`, too
  of_dense = optax.partition(
    {"held": holds(), "other": optax.adam(0.1)},
    {"dense": "held", "mixed": "other"},
  )
  state = of_dense.init(PARAMS)
  assert restart(of_dense, state) is state


@pytest.mark.parametrize(
  "init",
  [
    jax.jit(lambda params: jax.tree.map(jnp.ones_like, params)),
    lambda params: jax.tree.map(lambda p: jnp.full_like(p, 0.1), params),
    lambda params: optax.tree.cast(jnp.zeros(p := len(params)), p and None),
  ],
)
def test_constants_of_a_shape_are_no_weights(init):
  assert held_leaves(init, PARAMS, [True, True]) == {}


def test_an_init_that_computes_outside_of_jax_is_refused():
  init = lambda params: jnp.asarray(np.asarray(params["mixed"]).mean())
  with pytest.raises(ValueError, match="outside of JAX"):
    held_leaves(init, PARAMS, [True, True])


def test_registered_fields_restart(known):
  known(weights=("start",), kept=("seen",))
  tx = optax.chain(holds(lambda params: optax.tree.norm(params)))
  (state,) = restart(tx, filled(tx.init(PARAMS)))
  assert not state.start["mixed"].any()
  assert (state.start["dense"] == 7).all()
  assert state.seen == 7


def test_registering_checks_its_fields():
  with pytest.raises(ValueError, match=r"'start', 'seen'.*'z'"):
    gx.register_held_weights(HoldsState, weights=("z",))
  with pytest.raises(ValueError, match=r"NamedTuple.*dict"):
    gx.register_held_weights(dict, weights=("z",))


def test_a_state_of_another_optimizer_is_named():
  tx = contrib.schedule_free_sgd(0.1)
  with pytest.raises(ValueError, match=r"opt_state.*got 9"):
    restart(tx, [jnp.zeros(())] * 9)


HOLDING = {
  "schedule_free_sgd": contrib.schedule_free_sgd(1e-2),
  "madgrad": contrib.madgrad(1e-2),
  "cocob": contrib.cocob(),
  "lbfgs": optax.lbfgs(0.1, linesearch=None),
}


@pytest.mark.parametrize(
  ("inner", "moments"), every_value(HOLDING, ["carry", "reset"])
)
def test_a_fresh_entry_is_not_updated_on_a_zero_gradient(inner, moments):
  """What it would move by is what another entry has learned."""
  params = {"w": jnp.ones((4, 10))}
  tx = gx.gmixout(
    HOLDING[inner], key=0, sparsity=0.5, resample_every=3, moments=moments
  )
  update = jax.jit(tx.update)
  state = tx.init(params)
  for _ in range(3):
    updates, state = update({"w": jnp.ones((4, 10))}, state, params)
    params = optax.apply_updates(params, updates)
  assert not np.allclose(params["w"], 1)
  updates, _ = update({"w": jnp.zeros((4, 10))}, state, params)
  np.testing.assert_allclose(updates["w"], 0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("estimate", "moments"),
  every_value(
    [
      (contrib.prodigy(), "estim_lr"),
      (contrib.dadapt_adamw(), "estim_lr"),
      (contrib.dowg(), "estim_sq_dist"),
    ],
    ["carry", "reset"],
  ),
)
def test_an_estimate_of_scale_never_shrinks(estimate, moments):
  """And grows, over a dozen redraws."""
  inner, scale = estimate
  tx = make(inner, moments=moments, resample_every=10)
  target = jax.tree.map(jnp.zeros_like, params_of())

  def step(carry, _):
    params, state = carry
    grads = jax.tree.map(jnp.subtract, params, target)
    updates, state = tx.update(grads, state, params)
    inner_state = state.inner_state
    if moments == "reset":
      inner_state = inner_state.mixed
    estimate = optax.tree.get(inner_state, scale)
    return (optax.apply_updates(params, updates), state), estimate

  start = params_of(), tx.init(params_of())
  _, estimates = jax.jit(lambda c: jax.lax.scan(step, c, length=150))(start)
  assert (np.diff(estimates) >= 0).all()
  assert estimates[-1] > 30 * estimates[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("moments", ["carry", "reset"])
@pytest.mark.parametrize(
  "inner",
  [
    contrib.prodigy(),
    contrib.dowg(),
    contrib.dadapt_adamw(),
    contrib.mechanize(optax.sgd(0.1)),  # raised, of two dtypes
    contrib.schedule_free_adamw(0.1),
    optax.adam(0.1, mu_dtype="bfloat16"),
    optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)),
  ],
)
def test_narrow_weights_beside_float32_residuals(inner, moments, dtype):
  """One dtype inside; updates have that of the weights."""
  params = params_of(dtype)
  tx = make(inner, moments=moments, target="kernel")
  state = jax.eval_shape(tx.init, params)
  updates, after = jax.eval_shape(tx.update, params, state, params)
  assert types(after) == types(state)
  assert types(updates) == types(jax.eval_shape(lambda: params))


def test_a_kept_residual_keeps_the_weights_that_the_state_holds():
  params = {"w": jnp.ones((4, 10))}
  tx = gx.mixout(contrib.schedule_free_sgd(0.1), key=0, sparsity=0.5)
  state = tx.init(params)
  for steps in range(1, 4):
    updates, state = tx.update({"w": jnp.ones((4, 10))}, state, params)
    params = optax.apply_updates(params, updates)
    weight = optax.tree.get(state.inner_state, "weight_sum")
    np.testing.assert_allclose(weight, steps * 0.1**2, rtol=1e-5)


def test_only_integers_beside_moments_restart_as_counts():
  """A number that is no integer estimates something."""
  params = {"w": jnp.ones(2)}
  init = lambda params: {
    "mu": jax.tree.map(jnp.zeros_like, params),
    "count": jnp.zeros((), jnp.int32),
    "scale": jnp.full((), 1e-6),
    "first": jnp.array(False),
  }
  tx = optax.GradientTransformation(init, lambda g, s, p=None: (g, s))
  state = filled(init(params), 1)
  state = restart_moments(tx, state, init(params), ALWAYS)
  assert not state["mu"]["w"].any()
  assert state["count"] == 0
  assert state["scale"] == 1
  assert state["first"]


def test_averages_of_momo_restart_with_its_momentum():
  tx = make(contrib.momo(0.1), moments="reset", resample_every=2)
  params = params_of()
  state = tx.init(params)
  for _ in range(3):
    _, state = tx.update(params, state, params, value=jnp.float32(5))
  inner = state.inner_state.mixed
  assert int(inner.count) == 1
  # As momo begins: its averages are those of the first loss.
  np.testing.assert_allclose(inner.barf, 5)
