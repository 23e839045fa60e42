"""Tests `gmixout_jax/transform.py`: a first-class citizen of Optax."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from tests.combinations import every_value, tried
from tests.gmixout_jax.small_tree import (
  RESIDUALS,
  assert_equal,
  loss,
  make,
  params_of,
)

pytestmark = pytest.mark.slow


def run(tx, params, steps, **extra):
  @jax.jit
  def step(params, state):
    updates, state = tx.update(jax.grad(loss)(params), state, params, **extra)
    return optax.apply_updates(params, updates), state

  state = tx.init(params)
  for _ in range(steps):
    params, state = step(params, state)
  return params, state


def count_active(masks):
  return jax.tree.map(lambda mask: int(mask.sum()), masks)


def test_chain_and_unknown_extra_arguments():
  tx = optax.chain(optax.clip_by_global_norm(1.0), make(optax.adam(0.1)))
  plain, _ = run(tx, params_of(), 3)
  extra, _ = run(tx, params_of(), 3, value=jnp.float32(1), surprise="x")
  assert_equal(plain, extra)


def test_extra_arguments_reach_the_inner_optimizer():
  seen = []

  def update(updates, state, params=None, *, value, **extra):
    seen.append(value)
    return updates, state

  inner = optax.GradientTransformationExtraArgs(
    lambda params: optax.EmptyState(), update
  )
  run(make(inner), params_of(), 2, value=7.0)
  assert seen == [7.0]  # once, while it is traced


def test_masked_sees_only_its_leaves():
  only_head = {"fc": {"kernel": False, "bias": False}, "head": [True]}
  tx = optax.masked(make(optax.sgd(0.1)), only_head)
  params, state = run(tx, params_of(), 1)
  masks = count_active(gx.gmixout_masks(state, params))
  assert masks == {"fc": {"kernel": 0, "bias": 0}, "head": [24]}
  evaluated = gx.gmixout_eval_params(state, params)
  np.testing.assert_array_equal(evaluated["fc"]["bias"], params["fc"]["bias"])
  assert not np.array_equal(evaluated["head"][0], params["head"][0])


def test_partition_with_two_mixes():
  labels = {"fc": {"kernel": "a", "bias": "c"}, "head": ["b"]}
  tx = optax.partition(
    {
      "a": make(optax.adam(0.1), sparsity=0.5),
      "b": make(optax.adam(0.1)),
      "c": optax.set_to_zero(),
    },
    labels,
  )
  params, state = run(tx, params_of(), 3)
  masks = count_active(gx.gmixout_masks(state, params))
  assert masks == {"fc": {"kernel": 48, "bias": 0}, "head": [24]}
  np.testing.assert_array_equal(params["fc"]["bias"], np.ones(12))
  evaluated = gx.gmixout_eval_params(state, params)
  assert jax.tree.structure(evaluated) == jax.tree.structure(params)


def test_unmixed_leaves_go_through_the_inner_optimizer():
  params, _ = run(make(optax.adam(0.1), target="kernel"), params_of(), 5)
  expected, _ = run(optax.adam(0.1), params_of(), 5)
  np.testing.assert_allclose(params["fc"]["bias"], expected["fc"]["bias"])
  np.testing.assert_allclose(params["head"][0], expected["head"][0])
  assert not np.allclose(params["fc"]["kernel"], expected["fc"]["kernel"])


@pytest.mark.parametrize(
  "moments", tried(["carry", "reset"], lambda moments: moments == "reset")
)
def test_inject_hyperparams_of_the_learning_rate(moments):
  @optax.inject_hyperparams
  def factory(learning_rate):
    return make(optax.adam(learning_rate), moments=moments)

  params, state = run(factory(learning_rate=0.1), params_of(), 5)
  expected, expected_state = run(
    make(optax.adam(0.1), moments=moments), params_of(), 5
  )
  assert_equal(params, expected)
  assert_equal(state.inner_state.anchor, expected_state.anchor)
  assert_equal(
    gx.gmixout_eval_params(state, params),
    gx.gmixout_eval_params(expected_state, expected),
  )


def test_inject_hyperparams_of_gmixout_itself():
  factory = optax.inject_hyperparams(
    gx.gmixout, static_args=("sparsity", "resample_every")
  )
  arguments = {
    "inner": optax.adam(0.1),
    "sparsity": 0.75,
    "resample_every": 2,
    "anchor_decay": 0.3,
    "key": 0,
  }
  with pytest.raises(ValueError, match="static_args"):
    jax.jit(optax.inject_hyperparams(gx.gmixout)(**arguments).init)(params_of())
  arguments["key"] = jax.random.key_data(jax.random.key(0))
  params, state = run(factory(**arguments), params_of(), 5)
  assert set(state.hyperparams) == {"anchor_decay", "key"}
  expected, _ = run(make(optax.adam(0.1)), params_of(), 5)
  assert_equal(params, expected)


def test_the_mask_is_constant_inside_an_accumulation_window():
  tx = optax.MultiSteps(
    make(optax.sgd(0.01), resample_every=1), every_k_schedule=3
  )

  @jax.jit
  def step(params, state):
    mask = gx.gmixout_masks(state, params)["head"][0]
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state, mask

  params, state = params_of(), tx.init(params_of())
  drawn = []
  for _ in range(7):
    params, state, mask = step(params, state)
    drawn.append(np.asarray(mask))
  changed = [not np.array_equal(*pair) for pair in itertools.pairwise(drawn)]
  assert changed == [False, False, True, False, False, True]
  # Equal micro-batches accumulate to one step of their mean.
  expected, _ = run(make(optax.sgd(0.01), resample_every=1), params_of(), 2)
  assert_equal(params, expected, rtol=1e-5)


def test_a_step_skipped_by_apply_if_finite_changes_nothing():
  tx = optax.apply_if_finite(make(optax.adam(0.1)), max_consecutive_errors=5)
  params, state = run(tx, params_of(), 3)
  before = state.inner_state
  broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
  updates, state = tx.update(broken, state, params)
  assert_equal(state.inner_state, before)
  assert_equal(optax.apply_updates(params, updates), params)
  assert_equal(
    gx.gmixout_masks(state, params), gx.gmixout_masks(before, params)
  )


@pytest.mark.parametrize(
  ("residual", "moments"), every_value(RESIDUALS, ["carry", "reset"])
)
def test_map_params_reaches_anchor_and_moments(residual, moments):
  tx = optax.chain(make(optax.adam(0.1), residual=residual, moments=moments))
  _, state = run(tx, params_of(), 3)
  same = optax.tree.map_params(tx, lambda leaf: leaf, state)
  assert_equal(same, state, rtol=0)
  zeroed = optax.tree.map_params(tx, jnp.zeros_like, state)[0]
  assert all(not leaf.any() for leaf in jax.tree.leaves(zeroed.anchor))
  assert int(zeroed.count) == 3


@pytest.mark.parametrize("moments", ["carry", "reset"])
def test_leaves_may_be_none_or_masked(moments):
  tx = make(optax.adam(0.1), moments=moments)
  empty = {"absent": None, "masked": optax.MaskedNode()}
  params = params_of() | empty
  trained, state = run(tx, params, 3)
  expected, _ = run(tx, params_of(), 3)
  assert_equal(trained, expected | empty)
  evaluated = gx.gmixout_eval_params(state, trained)
  assert jax.tree.structure(evaluated) == jax.tree.structure(params)


def test_gradients_may_be_none():
  """Where the inner optimizer allows it: optax.sgd does, adam does not."""
  tx = make(optax.sgd(0.1))
  params = params_of()
  grads = jax.grad(loss)(params) | {"head": [None]}
  updates, state = tx.update(grads, tx.init(params), params)
  assert updates["head"] == [None]
  assert updates["fc"]["kernel"].any()
  evaluated = gx.gmixout_eval_params(state, params)
  np.testing.assert_array_equal(evaluated["head"][0], params["head"][0])


@pytest.mark.parametrize(
  "wrap",
  [
    functools.partial(optax.lookahead, sync_period=2, slow_step_size=0.5),
    functools.partial(
      optax.lookahead, sync_period=2, slow_step_size=0.5, reset_state=True
    ),
  ],
)
def test_lookahead_around_it(wrap):
  tx = wrap(make(optax.sgd(0.1)))
  params = optax.LookaheadParams.init_synced(params_of())
  state = tx.init(params)
  for _ in range(4):
    updates, state = tx.update(jax.grad(loss)(params.fast), state, params)
    params = optax.apply_updates(params, updates)
  assert np.isfinite(params.fast["fc"]["kernel"]).all()


def test_sam_around_it():
  tx = optax.contrib.sam(make(optax.sgd(0.1)), optax.sgd(0.01), sync_period=2)
  params, _ = run(tx, params_of(), 4)
  assert np.isfinite(params["fc"]["kernel"]).all()


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_converges_on_a_matrix(sparsity):
  tx = gx.gmixout(optax.adam(0.02), sparsity=sparsity, resample_every=5, key=0)
  target = jnp.array([[3.0, -2.0], [1.0, 4.0]])

  def step(carry, _):
    params, state = carry
    updates, state = tx.update(params - target, state, params)
    return (optax.apply_updates(params, updates), state), None

  start = jnp.zeros((2, 2))
  (params, state), _ = jax.lax.scan(step, (start, tx.init(start)), length=3000)
  evaluated = gx.gmixout_eval_params(state, params)
  np.testing.assert_allclose(evaluated, target, rtol=3e-2, atol=3e-2)
