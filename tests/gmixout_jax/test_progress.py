"""Tests `gmixout_progress` against linear models that reach the bound."""

import decimal
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from tests.combinations import tried

SETTINGS = [
  (decay, sparsity, rescale)
  for decay, sparsity, rescale in itertools.product(
    (0.0, 0.3, 0.8, 1.0), (0.0, 0.5, 0.9), (True, False)
  )
]


def remaining_in_numpy(rng, episodes, decay, sparsity, rescale, fit):
  """Part of a least-squares problem's residual that the anchor leaves.

  The model has more weights than targets, so that a mask can fit them all:
  how much of what is left an episode fits is `fit`.
  """
  weights, targets = 200, 5
  inputs = rng.normal(size=(targets, weights))
  wanted = rng.normal(size=targets)
  anchor = rng.normal(size=weights)
  kept = round(weights * (1 - sparsity))
  scale = kept / weights if rescale else 1.0
  first = np.linalg.norm(inputs @ anchor - wanted)
  for _ in range(episodes):
    mask = rng.permutation(weights)[:kept]
    left = wanted - inputs @ anchor
    # The training weights are A + M Δ/s, the loss sees nothing else.
    trained, *_ = np.linalg.lstsq(inputs[:, mask] / scale, fit * left)
    anchor[mask] += (1 - decay) * trained
  return np.linalg.norm(inputs @ anchor - wanted) / first


@pytest.mark.parametrize(("decay", "sparsity", "rescale"), SETTINGS)
def test_a_linear_model_reaches_the_bound_exactly(
  rng, decay, sparsity, rescale
):
  bound = gx.gmixout_progress(
    60,
    resample_every=10,
    anchor_decay=decay,
    sparsity=sparsity,
    rescale=rescale,
  )
  settings = (6, decay, sparsity, rescale)
  reached = 1 - remaining_in_numpy(rng, *settings, fit=1.0)
  assert reached == pytest.approx(bound, abs=1e-10)
  for fit in (0.1, 0.7, 0.99):
    less = 1 - remaining_in_numpy(rng, *settings, fit=fit)
    assert less < bound or bound in (0, 1)
    assert less <= bound + 1e-10


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize(
  ("sampler", "rescale", "k"),
  # The bound is the same for all samplers.
  tried(
    itertools.product(
      ["stratified", "uniform", "bernoulli", "neuron"], [True, False], [1, 3]
    ),
    lambda *case: case in {("stratified", True, 1), ("neuron", False, 3)},
  ),
)
def test_the_library_reaches_the_bound(rng, x64, sampler, rescale, k):
  """One linear output of all weights, which an episode fits in a step.

  By a step of Polyak's: twice the loss over the squared gradient is exact for a
  square, whatever the mask. (Optax squares its `scaling` in the gradient too.)
  """
  signs = jnp.asarray(rng.choice([-1.0, 1.0], size=(40, 20)), jnp.float64)
  target = 3.0
  tx = gx.gmixout(
    optax.polyak_sgd(max_learning_rate=1.0, scaling=0.5, eps=1e-12),
    key=3,
    sampler=sampler,
    rescale=rescale,
    resample_every=k,
  )
  output = lambda weights: jnp.sum(signs * weights)
  loss = lambda weights: 0.5 * (output(weights) - target) ** 2
  weights = jnp.zeros((40, 20))
  state = tx.init(weights)

  @jax.jit
  def step(weights, state):
    value, grads = jax.value_and_grad(loss)(weights)
    updates, state = tx.update(grads, state, weights, value=value)
    return optax.apply_updates(weights, updates), state

  for count in range(1, 4 * k + 1):
    weights, state = step(weights, state)
    if count % k == 0:  # the evaluation weights are the anchor
      anchor = gx.gmixout_eval_params(state, weights)
      bound = gx.gmixout_progress(count, resample_every=k, rescale=rescale)
      assert output(anchor) / target == pytest.approx(bound, rel=1e-6)


def test_an_open_episode_is_worth_a_whole_one_at_most(rng):
  """T/k is not rounded: below k steps the bound is that of the anchor."""
  whole = gx.gmixout_progress(10, resample_every=10)
  assert whole == pytest.approx(0.07)
  rising = [gx.gmixout_progress(t, resample_every=10) for t in range(11)]
  assert rising[0] == 0
  assert rising == sorted(rising)
  assert rising[5] == pytest.approx(1 - math.sqrt(1 - 0.07))
  never = gx.gmixout_progress(500, resample_every=None)
  assert never == pytest.approx(whole)
  assert gx.gmixout_progress(0, resample_every=None) == 0
  # `random_mask` can learn all of it.
  assert (
    gx.gmixout_progress(
      500, resample_every=None, anchor_decay=0.0, rescale=False
    )
    == 1.0
  )


def test_bounds_at_the_ends_of_the_ranges():
  progress = gx.gmixout_progress
  assert progress(100, anchor_decay=1.0) == 0
  assert progress(100, anchor_decay=1.0, rescale=False) == 0
  assert progress(1, anchor_decay=0.0, sparsity=0.0) == 1
  assert progress(1, anchor_decay=0.0, rescale=False) == 1
  assert progress(0, anchor_decay=0.0, sparsity=0.0) == 0
  assert progress(10, sparsity=0.0) == progress(10, rescale=False)
  assert progress(10, sparsity=0.0) == pytest.approx(0.7)
  assert progress(10**12) == 1.0
  assert isinstance(progress(np.int64(10), sparsity=jnp.float32(0.5)), float)


@pytest.mark.parametrize(
  ("steps", "every", "decay", "sparsity"),
  [
    (1, 10**9, 0.3, 0.9),
    (3, 7, 0.5, 1 - 2**-40),
    (10, 10, 1 - 2**-50, 0.5),
    (10, 3, 2**-60, 0.0),
    (10**6, 1, 0.3, 0.9),
    (7, 2, 0.25, 0.875),
  ],
)
@pytest.mark.parametrize("rescale", [True, False])
def test_it_is_exact_near_zero_and_one(steps, every, decay, sparsity, rescale):
  with decimal.localcontext(prec=80):
    exact = [decimal.Decimal(x) for x in (steps, every, decay, sparsity)]
    factor = exact[2]
    if rescale:
      factor = 1 - (1 - exact[2]) * (1 - exact[3])
    expected = float(1 - factor ** (exact[0] / exact[1]))
  found = gx.gmixout_progress(
    steps,
    resample_every=every,
    anchor_decay=decay,
    sparsity=sparsity,
    rescale=rescale,
  )
  assert found == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
  ("name", "bad"),
  [
    *(("steps", bad) for bad in (-1, math.inf, math.nan, "10", None, True)),
    *(("resample_every", bad) for bad in (0, -1, 0.5, math.inf, "10")),
    *(("anchor_decay", bad) for bad in (-0.1, 1.1, math.nan, None)),
    *(("sparsity", bad) for bad in (-0.1, 1.0, 1.5, math.nan, None)),
  ],
)
def test_what_is_out_of_range_is_refused(name, bad):
  arguments = {"steps": 10} | {name: bad}
  with pytest.raises(ValueError, match=f"{name} must be .* got {bad!r}"):
    gx.gmixout_progress(**arguments)


@pytest.mark.parametrize("name", ["resample_every", "anchor_decay"])
def test_schedules_are_refused(name):
  with pytest.raises(
    ValueError, match=f"{name} must be a number here, got the"
  ):
    gx.gmixout_progress(100, **{name: lambda episode: 1})
  # Stretches multiply, as the message says.
  left = 1 - gx.gmixout_progress(30), 1 - gx.gmixout_progress(70)
  whole = gx.gmixout_progress(100)
  assert 1 - math.prod(left) == pytest.approx(whole, rel=1e-12)
