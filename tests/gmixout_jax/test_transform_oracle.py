"""Tests `gmixout_jax/transform.py` against float64 NumPy, step by step."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from gmixout_jax._core import samplers
from tests.combinations import every_value, tried
from tests.gmixout_jax import oracle

SAMPLERS = ("stratified", "uniform", "bernoulli", "neuron")
SHAPE = (12, 20)
STEPS = 11


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


@pytest.fixture
def problem(rng):
  """Weights, and the gradient of a loss that is not separable in them."""
  weights = rng.normal(size=SHAPE)
  inputs, outputs = rng.normal(size=(30, 12)), rng.normal(size=(30, 20))

  def gradient(w):
    return inputs.T @ np.tanh(inputs @ w - outputs) / 30

  return weights, gradient


def run(tx, weights, gradient, steps=STEPS):
  """Yields (trained, evaluated, mask) after each step."""
  params = {"layer": {"kernel": jnp.asarray(weights)}}
  state = tx.init(params)
  update = jax.jit(tx.update)
  for _ in range(steps):
    grads = {"layer": {"kernel": jnp.asarray(gradient(_kernel(params)))}}
    updates, state = update(grads, state, params)
    params = optax.apply_updates(params, updates)
    yield _kernel(params), _kernel(gx.gmixout_eval_params(state, params))


def _kernel(params):
  return np.asarray(params["layer"]["kernel"])


def draw_mask(sampler, kept, seed=0):
  """Function episode -> boolean mask of the leaf, and its layout."""
  layout = samplers.leaf_layout(sampler, "layer/kernel", SHAPE, kept, "io")
  like = jnp.zeros(SHAPE)

  def mask(episode):
    key = samplers.leaf_keys(jax.random.key(seed), episode, ["layer/kernel"])[0]
    return np.asarray(layout.mask(layout.draw(key, like), like))

  return mask, layout


def draw_order(layout, seed=0):
  """Function episode -> flat positions of the active entries, by slot."""
  numbered = 1 + jnp.arange(np.prod(SHAPE)).reshape(SHAPE)

  def order(episode):
    key = samplers.leaf_keys(jax.random.key(seed), episode, ["layer/kernel"])[0]
    taken = layout.take(numbered, layout.draw(key, numbered)).ravel()
    return np.asarray(taken[taken > 0]) - 1  # unused slots read zero

  return order


def assert_follows(trajectory, expected):
  for step, (ours, theirs) in enumerate(
    itertools.zip_longest(trajectory, expected)
  ):
    for name, one, other in zip(
      ("trained", "evaluated"), ours, theirs, strict=True
    ):
      np.testing.assert_allclose(
        one, other, rtol=1e-10, atol=1e-12, err_msg=f"{name}, step {step}"
      )


@pytest.mark.parametrize(
  ("sampler", "rescale"),
  # AdamW, below, is tried with all samplers.
  tried(
    itertools.product(SAMPLERS, [True, False]),
    lambda *case: case in {("neuron", False), ("bernoulli", True)},
  ),
)
def test_gmixout_with_sgd(problem, sampler, rescale):
  weights, gradient = problem
  mask, layout = draw_mask(sampler, 0.3)
  tx = gx.gmixout(
    optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.05)),
    sparsity=0.7, anchor_decay=0.4, resample_every=3, key=0, sampler=sampler,
    rescale=rescale,
  )  # fmt: skip
  expected = oracle.gmixout(
    weights, gradient, mask, inner=oracle.Sgd(0, 0.05, weight_decay=0.1),
    slots=int(np.prod(layout.packed_shape)),
    s=layout.kept_fraction if rescale else 1.0,
    decay=lambda _: 0.4, period=lambda _: 3, steps=STEPS,
  )  # fmt: skip
  assert_follows(run(tx, weights, gradient), expected)


@pytest.mark.parametrize(
  ("sampler", "moments"), every_value(SAMPLERS, ["carry", "reset"])
)
def test_gmixout_with_adamw(problem, sampler, moments):
  weights, gradient = problem
  mask, layout = draw_mask(sampler, 0.3)
  slots = int(np.prod(layout.packed_shape))
  tx = gx.gmixout(
    optax.adamw(0.05, weight_decay=0.1), sparsity=0.7, anchor_decay=0.4,
    resample_every=3, key=0, sampler=sampler, moments=moments,
  )  # fmt: skip
  expected = oracle.gmixout(
    weights, gradient, mask, inner=oracle.AdamW(slots, 0.05, 0.1), slots=slots,
    s=layout.kept_fraction, decay=lambda _: 0.4, period=lambda _: 3,
    steps=STEPS, restart=moments == "reset", order=draw_order(layout),
  )  # fmt: skip
  assert_follows(run(tx, weights, gradient), expected)


@pytest.mark.parametrize(
  ("sampler", "optimizer"),
  tried(
    itertools.product(SAMPLERS, ["sgd", "adam"]),
    lambda *case: case in {("neuron", "adam"), ("bernoulli", "sgd")},
  ),
)
def test_mixout(problem, sampler, optimizer):
  weights, gradient = problem
  mask, layout = draw_mask(sampler, 0.3)
  if optimizer == "sgd":
    inner = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.05))
    theirs = oracle.Sgd(weights.size, 0.05, 0.1)
  else:
    inner = optax.adamw(0.05, weight_decay=0.1)
    theirs = oracle.AdamW(weights.size, 0.05, 0.1)
  tx = gx.mixout(inner, sparsity=0.7, key=0, sampler=sampler)
  expected = oracle.mixout(
    weights, gradient, mask, inner=theirs, s=layout.kept_fraction, steps=STEPS
  )
  assert_follows(run(tx, weights, gradient), expected)


def test_periods_and_decays_may_follow_schedules(problem):
  weights, gradient = problem
  mask, layout = draw_mask("stratified", 0.3)
  tx = gx.gmixout(
    optax.sgd(0.05), sparsity=0.7, key=0,
    anchor_decay=lambda episode: 0.5 / (1.0 + episode),
    resample_every=lambda episode: 1.0 + episode,
  )  # fmt: skip
  expected = oracle.gmixout(
    weights, gradient, mask, inner=oracle.Sgd(0, 0.05), slots=12 * 6,
    s=layout.kept_fraction, decay=lambda episode: 0.5 / (1 + episode),
    period=lambda episode: 1 + episode, steps=STEPS,
  )  # fmt: skip
  assert_follows(run(tx, weights, gradient), expected)


def test_random_mask_trains_one_mask_unscaled(problem):
  weights, gradient = problem
  mask, _ = draw_mask("stratified", 0.3)
  tx = gx.random_mask(optax.adam(0.05), sparsity=0.7, key=0)
  expected = oracle.gmixout(
    weights, gradient, mask, inner=oracle.AdamW(72, 0.05), slots=72, s=1.0,
    decay=lambda _: 0.0, period=lambda _: 10**9, steps=STEPS,
  )  # fmt: skip
  for (trained, evaluated), (theirs, _) in zip(
    run(tx, weights, gradient), expected, strict=True
  ):
    np.testing.assert_allclose(trained, theirs, rtol=1e-12)
    np.testing.assert_allclose(evaluated, trained, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(trained[~mask(0)], weights[~mask(0)])


def test_kept_residual_with_anchor_decay(problem):
  """The anchor follows the learned weights, which a redraw does not touch."""
  weights, gradient = problem
  mask, layout = draw_mask("stratified", 0.3)
  s = layout.kept_fraction
  tx = gx.gmixout(
    optax.sgd(0.05), sparsity=0.7, anchor_decay=0.4, resample_every=2, key=0,
    residual="keep",
  )  # fmt: skip
  anchor, learned, trained = weights.copy(), weights.copy(), weights
  for step, (ours, evaluated) in enumerate(run(tx, weights, gradient, 7)):
    drawn = mask(step // 2)
    learned = learned - 0.05 * drawn * gradient(trained) / s
    if step % 2 == 1:
      anchor = 0.4 * anchor + 0.6 * learned
    trained = anchor + mask((step + 1) // 2) * (learned - anchor) / s
    np.testing.assert_allclose(ours, trained, rtol=1e-10)
    np.testing.assert_allclose(evaluated, learned, rtol=1e-10)
