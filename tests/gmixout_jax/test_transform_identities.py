"""Tests `gmixout_jax/transform.py`: what GMixout equals, and always."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from tests.combinations import EXHAUSTIVE, every_value, tried

pytestmark = pytest.mark.slow

SAMPLERS = ("stratified", "uniform", "bernoulli", "neuron")


@pytest.fixture
def params(rng):
  return {
    "layer": {"kernel": jnp.asarray(rng.normal(size=(8, 30)), jnp.float32)},
    "head": {"kernel": jnp.asarray(rng.normal(size=(30, 3)), jnp.float32)},
  }


@pytest.fixture
def params_with_bias(params):
  bias = jnp.linspace(-1.0, 1.0, 30)
  return params | {"layer": params["layer"] | {"bias": bias}}


def loss(params):
  hidden = params["layer"]["kernel"]
  if "bias" in params["layer"]:
    hidden = hidden + params["layer"]["bias"][None]
  return jnp.mean((jnp.tanh(hidden) @ params["head"]["kernel"] - 1.0) ** 2)


def trajectory(tx, params, steps):
  """Yields (params, state) before the first step and after each."""

  @jax.jit
  def step(params, state):
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  state = jax.jit(tx.init)(params)
  yield params, state
  for _ in range(steps):
    params, state = step(params, state)
    yield params, state


def assert_close(one, other, rtol=1e-5, atol=1e-6):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol),
    one,
    other,
  )


@pytest.mark.parametrize(
  "inner",
  [
    optax.sgd(0.1, 0.9),
    pytest.param(optax.adam(0.01), marks=EXHAUSTIVE),
  ],
)
def test_without_sparsity_it_is_lookahead(params, inner):
  ours = gx.gmixout(
    inner, sparsity=0.0, anchor_decay=0.3, resample_every=4, key=0
  )
  theirs = optax.lookahead(inner, sync_period=4, slow_step_size=0.7)
  pair = optax.LookaheadParams.init_synced(params)
  their_state = theirs.init(pair)

  @jax.jit
  def step(pair, state):
    updates, state = theirs.update(jax.grad(loss)(pair.fast), state, pair)
    return optax.apply_updates(pair, updates), state

  for count, (trained, state) in enumerate(trajectory(ours, params, 13)):
    if count:
      pair, their_state = step(pair, their_state)
    assert_close(trained, pair.fast)
    if count % 4 == 0:
      assert_close(gx.gmixout_eval_params(state, trained), pair.slow)


@pytest.mark.parametrize(
  ("inner", "resample_every"),
  every_value([optax.sgd(0.1, 0.9), optax.adam(0.01)], [3, None]),
)
def test_without_sparsity_and_decay_it_is_the_inner_optimizer(
  params_with_bias, inner, resample_every
):
  ours = gx.gmixout(
    inner,
    sparsity=0.0,
    anchor_decay=0.0,
    resample_every=resample_every,
    key=0,
  )
  for (trained, state), (expected, _) in zip(
    trajectory(ours, params_with_bias, 7),
    trajectory(inner, params_with_bias, 7),
    strict=True,
  ):
    assert_close(trained, expected, rtol=1e-6, atol=1e-7)
    assert_close(gx.gmixout_eval_params(state, trained), trained)


@pytest.mark.parametrize(
  "sampler", tried(SAMPLERS, lambda name: name in ("stratified", "neuron"))
)
def test_off_the_mask_training_weights_are_the_anchor(params, sampler):
  """Checked against an anchor that is kept densely, outside the library."""
  decay, period = 0.4, 3
  tx = gx.gmixout(
    optax.adam(0.02),
    sparsity=0.7,
    anchor_decay=decay,
    resample_every=period,
    key=0,
    sampler=sampler,
  )
  anchor = jax.tree.map(np.asarray, params)
  mask = None
  for count, (trained, state) in enumerate(trajectory(tx, params, 10)):
    trained = jax.tree.map(np.asarray, trained)
    if count and count % period == 0:
      # The residual form says A += (1 − λ)Δ, which is what evaluation gives;
      # the absolute form, that the training weights now are the anchor.
      anchor = trained
      assert_close(gx.gmixout_eval_params(state, trained), trained, 0, 0)
    else:
      off = lambda leaf, m: np.where(m, 0, leaf)
      if mask is not None:
        jax.tree.map(
          np.testing.assert_array_equal,
          jax.tree.map(off, trained, mask),
          jax.tree.map(off, anchor, mask),
        )
      evaluated = gx.gmixout_eval_params(state, trained)
      # A third of three columns is too much: the head is one row of 90.
      s = {"layer": 9 / 30, "head": 27 / 90}
      if sampler == "stratified":
        for name, kept in s.items():
          a, w = anchor[name]["kernel"], trained[name]["kernel"]
          np.testing.assert_allclose(
            evaluated[name]["kernel"],
            a + (1 - decay) * kept * (w - a),
            rtol=1e-4,
            atol=1e-5,
          )
    mask = jax.tree.map(np.asarray, gx.gmixout_masks(state, trained))


def test_masks_change_at_episode_ends_only(params):
  tx = gx.gmixout(optax.sgd(0.1), resample_every=3, sparsity=0.7, key=0)
  drawn = [
    np.asarray(gx.gmixout_masks(state, trained)["layer"]["kernel"])
    for trained, state in trajectory(tx, params, 7)
  ]
  changes = [
    not np.array_equal(one, other) for one, other in itertools.pairwise(drawn)
  ]
  assert changes == [False, False, True, False, False, True, False]


def test_the_unfinished_episode_is_not_lost(params):
  """Evaluating in mid-episode equals ending the episode there."""
  make = functools.partial(
    gx.gmixout, optax.sgd(0.1), sparsity=0.7, anchor_decay=0.3, key=0
  )
  *_, (trained, state) = trajectory(make(resample_every=100), params, 5)
  *_, (ended, _) = trajectory(make(resample_every=5), params, 5)
  evaluated = gx.gmixout_eval_params(state, trained)
  assert_close(evaluated, ended)
  moved = np.abs(evaluated["layer"]["kernel"] - params["layer"]["kernel"])
  assert moved.max() > 1e-3


@pytest.mark.parametrize(
  "residual", tried(["reset", "keep"], lambda residual: residual == "reset")
)
def test_as_last_link_of_a_chain_it_differs_from_sgd_by_one_over_s(
  params, residual
):
  make = functools.partial(
    gx.gmixout,
    sparsity=0.9,
    resample_every=2,
    key=0,
    residual=residual,
    target="layer",
  )
  s = 3 / 30
  chain = optax.chain(
    optax.partition(
      {"layer": optax.sgd(0.01 / s), "head": optax.sgd(0.01)},
      {"layer": {"kernel": "layer"}, "head": {"kernel": "head"}},
    ),
    make(),
  )
  for (trained, _), (expected, _) in zip(
    trajectory(chain, params, 5),
    trajectory(make(optax.sgd(0.01)), params, 5),
    strict=True,
  ):
    assert_close(trained, expected)


def test_mixout_gradient_is_the_derivative_of_its_forward_pass(params):
  """It carries the 1/s that the public PyTorch backward pass leaves out."""
  tx = gx.mixout(optax.sgd(0.1), sparsity=0.7, key=0, target="layer")
  first, second, third = trajectory(tx, params, 2)
  anchor = params["layer"]["kernel"]
  learned = second[1].learned["layer"]["kernel"]
  mask = gx.gmixout_masks(second[1], second[0])["layer"]["kernel"]
  s = float(mask.mean())

  def mixed_loss(learned):
    mixed = anchor + mask * (learned - anchor) / s
    return loss(second[0] | {"layer": {"kernel": mixed}})

  gradient = jax.grad(mixed_loss)(learned)
  expected = learned - 0.1 * gradient
  assert_close(third[1].learned["layer"]["kernel"], expected)
  without_factor = learned - 0.1 * s * gradient
  assert np.abs(expected - without_factor).max() > 1e-4
  assert first[1].learned["layer"]["kernel"].shape == (8, 30)


def test_moments_carry_over_a_redraw_or_restart_with_it(params):
  states = {}
  for moments in ("carry", "reset"):
    tx = gx.gmixout(
      optax.adam(optax.constant_schedule(0.01)),
      sparsity=0.7,
      resample_every=3,
      key=0,
      moments=moments,
      target="layer",
    )
    *_, (_, states[moments]) = trajectory(tx, params, 4)
  adam, schedule = states["carry"].inner_state
  assert (adam.count, schedule.count) == (4, 4)
  adam, schedule = states["reset"].inner_state.mixed
  assert (adam.count, schedule.count) == (1, 4)
  adam, schedule = states["reset"].inner_state.dense
  assert (adam.count, schedule.count) == (4, 4)


def test_state_of_reset_residuals_holds_no_dense_array(params):
  tx = gx.gmixout(optax.adam(0.01), sparsity=0.9, key=0)
  state = tx.init(params)
  shapes = sorted(leaf.shape for leaf in jax.tree.leaves(state))
  packed = [(8, 3), (9,)]  # anchor, and Adam's two moments
  assert shapes == sorted([(), (), (), (2,), *(3 * packed)])
  assert all(leaf.dtype != bool for leaf in jax.tree.leaves(state))


def test_weights_loaded_after_init_are_the_anchor(params):
  tx = gx.gmixout(optax.sgd(0.1), sparsity=0.7, key=0)
  state = tx.init(jax.tree.map(jnp.zeros_like, params))
  assert_close(gx.gmixout_eval_params(state, params), params, 0, 0)
  updates, state = tx.update(jax.grad(loss)(params), state, params)
  trained = optax.apply_updates(params, updates)
  other = tx.init(params)
  _, other = tx.update(jax.grad(loss)(params), other, params)
  assert_close(
    gx.gmixout_eval_params(state, trained),
    gx.gmixout_eval_params(other, trained),
  )
