"""Tests `gmixout_jax/mixed_params.py` with weights narrower than float32.

The references are the NumPy oracle and `gmixout`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from gmixout_jax._core import samplers
from tests.combinations import EXHAUSTIVE
from tests.gmixout_jax import oracle
from tests.gmixout_jax.mixed_runs import (
  BATCH,
  INNER,
  PARAMS,
  create,
  jit,
  loss,
  packed_gradient,
  run_mixed,
  run_transform,
  transform,
  types,
)

pytestmark = pytest.mark.slow


def drawn_mask(shape, s):
  """Function episode -> boolean mask of the leaf "w"."""
  layout = samplers.leaf_layout("stratified", "w", shape, s)
  like = jnp.zeros(shape)

  @functools.cache
  def mask(episode):
    key = samplers.leaf_keys(jax.random.key(5), episode, ["w"])[0]
    return np.asarray(layout.mask(layout.draw(key, like), like))

  return mask


@pytest.mark.parametrize(
  ("by", "residual", "period", "decay"),
  [
    ("wrapper", "reset", 200, 0.4),
    pytest.param("wrapper", "keep", 200, 1.0, marks=EXHAUSTIVE),
    pytest.param("transform", "reset", 200, 0.4, marks=EXHAUSTIVE),
    ("transform", "keep", 200, 1.0),
  ],
)
def test_steps_below_the_precision_of_bfloat16_add_up(
  by, residual, period, decay
):
  """400 steps, each of which bfloat16 would round away, against float64."""
  weights = jnp.full((6, 20), 1.5, jnp.bfloat16)
  slope = jnp.asarray(np.tile([1.0, -0.5], 60).reshape(6, 20), jnp.bfloat16)
  learning_rate, steps, s = 1e-4, 400, 0.3
  move = learning_rate * slope.astype(jnp.float32) / s**2
  assert jnp.array_equal((weights + move).astype(jnp.bfloat16), weights)

  settings = {
    "resample_every": period,
    "anchor_decay": decay,
    "residual": residual,
    "target": None,
  }
  inner = optax.sgd(learning_rate)
  tx = transform(inner, **settings)
  linear = lambda params: jnp.sum((params["w"] * slope).astype(jnp.float32))

  def wrapper_step(mixed, _):
    trainable = mixed.trainable()
    grads = jax.grad(lambda t: linear(mixed.inject(t)))(trainable)
    updates, _ = inner.update(grads, inner.init(trainable))
    return mixed.apply_updates(updates), None

  def transform_step(carry, _):
    params, state = carry
    updates, state = tx.update(jax.grad(linear)(params), state, params)
    return (optax.apply_updates(params, updates), state), None

  @jit
  def run(params):
    if by == "wrapper":
      mixed = create(params, **settings)
      mixed, _ = jax.lax.scan(wrapper_step, mixed, length=steps)
      return mixed.params, mixed.eval_params(), mixed
    start = params, tx.init(params)
    (trained, state), _ = jax.lax.scan(transform_step, start, length=steps)
    return trained, gx.gmixout_eval_params(state, trained), state

  trained, evaluated, state = run({"w": weights})
  assert trained["w"].dtype == evaluated["w"].dtype == jnp.bfloat16
  assert state.anchor["w"].dtype == state.learned["w"].dtype == jnp.float32

  mask, exact = drawn_mask(weights.shape, s), np.asarray(weights, np.float64)
  gradient = lambda _: np.asarray(slope, np.float64)
  if residual == "reset":
    *_, expected = oracle.gmixout(
      exact, gradient, mask, inner=oracle.Sgd(0, learning_rate), slots=36, s=s,
      decay=lambda _: decay, period=lambda _: period, steps=steps,
    )  # fmt: skip
  else:
    *_, expected = oracle.mixout(
      exact, gradient, lambda count: mask(count // period),
      inner=oracle.Sgd(0, learning_rate), s=s, steps=steps,
    )  # fmt: skip
  # One unit in the last place of 1.5: rounded once here, once by an episode.
  for ours, theirs in zip((trained, evaluated), expected, strict=True):
    ours = np.asarray(ours["w"], np.float64)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2**-7)
  assert np.abs(expected[1] - exact).max() > 2 * 2**-7


def test_bfloat16_training_weights_are_rounded_once():
  """W is the nearest to A + (1 − λ)Δ, not the nearest to W plus a rounding."""
  params = {"w": jax.random.normal(jax.random.key(0), (32, 40), jnp.bfloat16)}
  mixed = create(params, target=None, resample_every=3)
  mask = np.asarray(mixed.masks()["w"])
  step = jit(lambda mixed, trainable: mixed.apply_updates(trainable))
  for seed in range(3):  # updates of all sizes
    update = jax.random.normal(jax.random.key(seed), mixed.anchor["w"].shape)
    mixed = step(mixed, {"w": 0.01 * update})
  anchor, learned = (np.float64(t["w"]) for t in (mixed.anchor, mixed.learned))
  wanted = (anchor + 0.6 * (learned - anchor)).astype(jnp.bfloat16)
  trained = np.asarray(mixed.params["w"])[mask].reshape(wanted.shape)
  np.testing.assert_array_equal(trained, wanted)


def test_bfloat16_weights_follow_gmixout():
  params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
  inner = INNER["sgd"]
  theirs, _, state = run_transform(transform(inner), params)
  trained, mixed, _ = run_mixed(create(params), inner)
  # Two programs round in other places: an ulp here and there.
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(
      one.astype(jnp.float32), other.astype(jnp.float32), rtol=0, atol=2**-6
    ),
    trained,
    theirs,
  )
  memory = lambda state: types((state.anchor, state.learned))
  assert memory(mixed) == memory(state)


def test_float32_weights_in_a_bfloat16_computation():
  def narrow_loss(params, batch):
    narrow = lambda leaf: leaf.astype(jnp.bfloat16)
    return loss(*jax.tree.map(narrow, (params, batch))).astype(jnp.float32)

  @jit
  def gradients(params, batch):
    mixed = create(params, target="blocks/1")
    of_mixed = lambda t: narrow_loss(mixed.inject(t), batch)
    packed = jax.grad(of_mixed)(mixed.trainable())
    return packed, jax.grad(narrow_loss)(params, batch), mixed.masks()

  packed, dense, mask = jax.device_get(gradients(PARAMS, BATCH))
  kernel = lambda tree: tree["blocks"][1]["kernel"]
  expected = packed_gradient("stratified", kernel(dense), kernel(mask))
  assert kernel(packed).dtype == np.float32
  # Nothing is rounded but what the computation itself has rounded.
  np.testing.assert_allclose(kernel(packed), expected, rtol=1e-6)


SMALLEST = 2.0**-24
"""Subnormal: the step between float16's numbers below 2^-14."""


@pytest.mark.parametrize("residual", ["reset", "keep"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_smallest_weights_are_not_taken_for_zero(residual, dtype):
  """Which rounding by XLA's `reduce_precision` does with subnormal numbers."""
  values = SMALLEST * np.array([1, 3, 500, 1023, 1024, 1500, -700, 2**20])
  weights = {"kernel": jnp.asarray(np.tile(values, (8, 5)), dtype)}
  tx = gx.gmixout(
    optax.sgd(1.0), key=0, residual=residual, rescale=False, anchor_decay=0.0
  )
  state, params = tx.init(weights), weights
  still = jax.tree.map(jnp.zeros_like, params)
  updates, state = jax.jit(tx.update)(still, state, params)
  params = optax.apply_updates(params, updates)
  np.testing.assert_array_equal(params["kernel"], weights["kernel"])
  if dtype == "float16":  # a step of one such number arrives, too
    moved = {"kernel": jnp.full((8, 40), -SMALLEST, dtype)}
    updates, _ = jax.jit(tx.update)(moved, state, params)
    stepped = optax.apply_updates(params, updates)["kernel"]
    change = np.float64(stepped) - np.float64(params["kernel"])
    small = np.abs(np.float64(params["kernel"])) < 2.0**-14
    assert set(change[small] / SMALLEST) == {0.0, 1.0}
