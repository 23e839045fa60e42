"""Tests `gmixout_jax/averaging/trajectory.py` and `swad.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gmixout_jax as gx
from gmixout_jax import averaging


def walk(optimizer, steps, params=None, seed=0):
  """All weights and all averages of a run on random gradients."""
  rng = np.random.default_rng(seed)
  params = params or {"w": jnp.zeros((4, 10))}
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  weights, averages, states = [params], [], []
  for _ in range(steps):
    gradient = jax.tree.map(
      lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype),
      params,
    )
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    weights.append(params)
    averages.append(averaging.average_params(state, params))
    states.append(state)
  return weights, averages, states


def stack(trees):
  return np.stack([np.asarray(t["w"]) for t in trees])


def test_ema_is_its_closed_form():
  decay, steps = 0.8, 7
  tx = averaging.average(optax.adam(0.1), averaging.exponential(decay))
  weights, averages, _ = walk(tx, steps)
  # β^T θ0 + (1 − β) Σ β^(T−t) θ_t
  powers = decay ** np.arange(steps, -1, -1)
  powers[1:] *= 1 - decay
  expected = np.tensordot(powers, stack(weights), 1)
  np.testing.assert_allclose(averages[-1]["w"], expected, atol=1e-6)


def test_the_optimizer_does_not_notice_the_average():
  plain = averaging.average(optax.adam(0.1), averaging.exponential(0.0))
  weights, averages, _ = walk(plain, 4)
  np.testing.assert_allclose(stack(averages), stack(weights[1:]), atol=1e-7)
  other, *_ = walk(
    averaging.average(optax.adam(0.1), averaging.uniform(start=3)), 4
  )
  np.testing.assert_array_equal(stack(weights), stack(other))


def test_swa_is_the_mean_of_the_steps_that_count():
  tx = averaging.average(optax.sgd(0.1), averaging.uniform(start=4, every=3))
  weights, averages, _ = walk(tx, 12)
  all_weights = stack(weights)
  for step, got in enumerate(averages, start=1):
    counting = [t for t in (4, 7, 10) if t <= step] or [step]
    np.testing.assert_allclose(
      got["w"], all_weights[counting].mean(0), atol=1e-6
    )


def test_segments_start_afresh():
  tx = averaging.average(optax.sgd(0.1), averaging.segments(every=3))
  weights, averages, _ = walk(tx, 9)
  for end in (3, 6, 9):
    expected = stack(weights)[end - 2 : end + 1].mean(0)
    np.testing.assert_allclose(averages[end - 1]["w"], expected, atol=1e-6)


def test_the_average_is_of_evaluation_weights():
  inner = gx.gmixout(optax.sgd(0.1), sparsity=0.5, resample_every=2, key=0)
  tx = averaging.average(
    inner, averaging.uniform(), deploy=gx.gmixout_eval_params
  )
  weights, averages, states = walk(tx, 5)
  evaluated = [
    gx.gmixout_eval_params(state, trained)
    for state, trained in zip(states, weights[1:], strict=True)
  ]
  np.testing.assert_allclose(
    averages[-1]["w"], stack(evaluated).mean(0), atol=1e-6
  )
  assert np.abs(averages[-1]["w"] - stack(weights[1:]).mean(0)).max() > 1e-3


def test_the_average_of_small_types_does_not_stall():
  # In bfloat16 1 + 0.001 · (2 − 1) is 1.
  params = {"w": jnp.ones((), jnp.bfloat16)}
  tx = averaging.average(optax.sgd(1.0), averaging.exponential(0.999))
  state = tx.init(params)
  _, state = tx.update({"w": -jnp.ones((), jnp.bfloat16)}, state, params)
  assert float(state.average["w"]) == pytest.approx(1.001)
  assert averaging.average_params(state, params)["w"].dtype == jnp.bfloat16


class Network(nnx.Module):
  def __init__(self):
    self.scale = nnx.Param(jnp.array([1.0, 2.0]))
    self.layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))


def test_the_average_in_an_nnx_optimizer_is_read():
  model = Network()
  tx = optax.chain(
    optax.clip(1.0), averaging.average(optax.sgd(0.1), averaging.uniform())
  )
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
  seen = []
  for _ in range(3):
    gradient = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, gradient)
    seen.append(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
  expected = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *seen)
  trained = nnx.state(model, nnx.Param)
  found = averaging.average_params(optimizer.opt_state, trained)
  assert jax.tree.structure(found) == jax.tree.structure(trained)
  # A plain dict of the same names does as well.
  plain = averaging.average_params(optimizer.opt_state, seen[-1])
  for tree in (nnx.to_pure_dict(found), plain):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), tree, expected
    )


def test_leaves_that_are_not_averaged_are_returned_unchanged():
  params = {"w": jnp.array(0.0), "frozen": jnp.array(7.0)}
  tx = optax.masked(
    averaging.average(optax.sgd(1.0), averaging.uniform()),
    {"w": True, "frozen": False},
  )
  state = tx.init(params)
  for _ in range(3):  # w = 1, 2, 3
    gradient = {"w": jnp.array(-1.0), "frozen": jnp.array(0.0)}
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  assert averaging.average_params(state, params) == {"w": 2.0, "frozen": 7.0}


def test_the_average_of_another_model_is_refused():
  tx = averaging.average(optax.sgd(1.0), averaging.uniform())
  state = tx.init({"a": jnp.zeros(2), "b": jnp.zeros(2)})
  with pytest.raises(ValueError, match="averages the leaf 'b', which params"):
    averaging.average_params(state, {"a": jnp.zeros(2)})
  with pytest.raises(ValueError, match=r"leaf 'b' .* shape \(3,\), .* \(2,\)"):
    averaging.average_params(state, {"a": jnp.zeros(2), "b": jnp.zeros(3)})


def test_errors_quote_the_value():
  for bad in (-0.1, 1.5):
    with pytest.raises(ValueError, match=f"got {bad}"):
      averaging.exponential(bad)
  with pytest.raises(ValueError, match="start must be at least 1, got 0"):
    averaging.uniform(start=0)
  with pytest.raises(ValueError, match="every must be at least 1, got 0"):
    averaging.segments(every=0)
  params = {"w": jnp.zeros(2)}
  tx = averaging.average(optax.sgd(1.0), averaging.uniform())
  with pytest.raises(ValueError, match="got params=None"):
    tx.update(params, tx.init(params))
  with pytest.raises(ValueError, match="one state of average, got 0"):
    averaging.average_params(optax.sgd(1.0).init(params), params)
  with pytest.raises(ValueError, match="one state of average, got 2"):
    averaging.average_params((tx.init(params), tx.init(params)), params)


# Worked by hand from the paper's Algorithm 1. With N_s = 3 the loss 1.0 at 2 is
# the first that its two successors do not undercut; the bound is
# 1.3 · (1.0 + 1.2 + 1.1)/3 = 1.43.
CURVE = [3.0, 2.0, 1.0, 1.2, 1.1, 1.4, 1.5, 1.42, 1.6, 1.7, 0.5]


@pytest.mark.parametrize(
  ("losses", "tolerance", "window"),
  [
    (CURVE, 2, (2, 7)),  # 1.6 and 1.7, the first two in a row above 1.43
    (CURVE, 1, (2, 5)),  # 1.5 alone ends it
    (CURVE, 3, (2, 10)),  # never three in a row
    (CURVE[:8], 6, (2, 7)),  # the run ends first
    ([5.0, 4.0, 3.0, 2.0], 6, (0, 3)),  # never converges: all of it
    ([1.0, 1.0, 1.0], 6, (0, 2)),  # a tie converges
    ([1.0, 9.0, 9.0, 9.0], 1, (0, 2)),  # 9 > 8.2, but 0 to 2 set the bound
    ([2.0], 6, (0, 0)),
  ],
)
def test_swads_window_on_scripted_curves(losses, tolerance, window):
  for make in (list, np.array, jnp.array):
    found = averaging.swad_window(make(losses), tolerance=tolerance)
    assert found == window


def algorithm_1(losses, converge, tolerance, ratio):
  """The paper's pseudo code, line by line, with i counted from 0."""
  start, end, limit = 0, len(losses) - 1, None
  for i in range(len(losses)):
    if limit is None:
      last = losses[max(0, i - converge + 1) : i + 1]
      if len(last) == converge and last[0] == min(last):
        start, limit = i - converge + 1, ratio * sum(last) / converge
    elif limit < min(losses[max(0, i - tolerance + 1) : i + 1]):
      end = i - tolerance
      break
  return start, end


def test_swads_window_is_that_of_the_pseudo_code(rng):
  for _ in range(300):
    losses = rng.uniform(1, 3, rng.integers(1, 20)).round(1).tolist()
    converge, tolerance = map(int, rng.integers(1, 6, 2))
    given = dict(converge=converge, tolerance=tolerance, ratio=1.1)
    window = averaging.swad_window(losses, **given)
    assert window == algorithm_1(losses, **given), (losses, given)


def test_swads_window_refuses_what_it_cannot_use():
  with pytest.raises(ValueError, match="at least one"):
    averaging.swad_window([])
  with pytest.raises(ValueError, match="nan"):
    averaging.swad_window([1.0, float("nan")])
  with pytest.raises(ValueError, match="list of numbers"):
    averaging.swad_window(np.ones((2, 2)))
  with pytest.raises(ValueError, match=r"ratio must be at least 1, got 0\.9"):
    averaging.swad_window([1.0], ratio=0.9)
  for value in (0, 2.0):
    message = f"tolerance must be an integer >= 1, got {value}"
    with pytest.raises(ValueError, match=message):
      averaging.swad_window([1.0], tolerance=value)


def test_infinities_that_never_change_stay_in_the_average():
  params = {"mask": jnp.array([-jnp.inf, 0.0]), "w": jnp.ones(2)}
  tx = averaging.average(optax.sgd(0.1), averaging.exponential(0.9))
  state = tx.init(params)
  grads = {"mask": jnp.zeros(2), "w": jnp.ones(2)}
  for _ in range(3):
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  found = averaging.average_params(state, params)
  np.testing.assert_array_equal(found["mask"], params["mask"])
  assert np.isfinite(found["w"]).all()
