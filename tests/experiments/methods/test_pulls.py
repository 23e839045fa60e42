"""Tests what holds weights back: L2-SP, SPD and FTP, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.methods.ftp import SMALLEST, trainable_projection
from experiments.methods.l2_sp import L2SP, add_spring
from experiments.methods.parts import in_backbone
from experiments.methods.schedule import Schedule
from experiments.methods.spd import selective_projection


def walk(optimizer, params, gradients):
  """The weights after each of some steps."""
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    yield params


def test_the_head_is_told_from_the_backbone():
  params = {"backbone": {"head": 1.0}, "head": {"kernel": 2.0}}
  assert in_backbone(params) == {
    "backbone": {"head": True},
    "head": {"kernel": False},
  }


def test_l2_sp_is_its_closed_form_under_sgd():
  # With a constant gradient c: w − w0 = −(c/α) (1 − (1 − ηα)^T) on the
  # backbone, and w = w0 (1 − ηβ)^T − (c/β)(…) on the head.
  alpha, beta, eta, steps, pull = 0.1, 0.5, 0.2, 20, 3.0
  params = {"backbone": jnp.array(7.0), "head": jnp.array(-2.0)}
  optimizer = optax.chain(add_spring(alpha, beta), optax.sgd(eta))
  gradient = jax.tree.map(lambda leaf: jnp.array(pull), params)
  *_, last = walk(optimizer, params, [gradient] * steps)
  kept = (1 - eta * alpha) ** steps
  assert float(last["backbone"]) == pytest.approx(7 - pull / alpha * (1 - kept))
  kept = (1 - eta * beta) ** steps
  expected = -2 * kept - pull / beta * (1 - kept)
  assert float(last["head"]) == pytest.approx(expected, rel=1e-5)


def test_l2_sp_adds_what_differentiating_the_penalty_adds(rng):
  params, moved = (
    {k: jnp.asarray(rng.standard_normal(3)) for k in ("backbone", "head")}
    for _ in range(2)
  )

  def penalty(p):
    distance = jnp.sum((p["backbone"] - params["backbone"]) ** 2)
    return 0.1 / 2 * distance + 0.01 / 2 * jnp.sum(p["head"] ** 2)

  spring = add_spring(L2SP().alpha, L2SP().beta)
  zeros = optax.tree.zeros_like(params)
  pulled, _ = spring.update(zeros, spring.init(params), moved)
  expected = jax.grad(penalty)(moved)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), pulled, expected
  )


def moving(step):
  """An "optimizer" that moves by given amounts, whatever the gradient."""
  return optax.stateless(lambda updates, params: step)


@pytest.mark.parametrize(
  ("strength", "gradient", "expected"),
  [
    (1.0, [1.0, 0.0], [3.0, 4.0]),  # ‖ŵ‖ = 10, ‖w‖ = 5: r = 1/2
    (0.5, [1.0, 0.0], [4.5, 6.0]),  # half of it
    (1.0, [-1.0, 0.0], [6.0, 8.0]),  # the loss falls outwards: free
    (1.0, [4.0, -3.0], [6.0, 8.0]),  # at right angles: free
    (0.0, [1.0, 0.0], [6.0, 8.0]),
  ],
)
def test_spd_by_hand(strength, gradient, expected):
  start = {"backbone": jnp.array([1.0, 1.0]), "head": jnp.array([0.0, 0.0])}
  step = {"backbone": jnp.array([3.0, 4.0]), "head": jnp.array([3.0, 4.0])}
  gradients = {k: jnp.array(gradient) for k in start}
  optimizer = selective_projection(moving(step), strength)
  # The first step from w0 is free: there is no way back yet.
  first, second = walk(optimizer, start, [gradients] * 2)
  np.testing.assert_allclose(first["backbone"], [4.0, 5.0])
  np.testing.assert_allclose(second["backbone"] - 1.0, expected, rtol=1e-6)
  np.testing.assert_allclose(second["head"], [6.0, 8.0])  # is left alone


def test_spd_leaves_steps_towards_the_start_alone():
  start = {"backbone": jnp.array([0.0]), "head": jnp.array([0.0])}
  state = selective_projection(moving(start), 1.0).init(start)
  back = {"backbone": jnp.array([-1.0]), "head": jnp.array([0.0])}
  far = {"backbone": jnp.array([5.0]), "head": jnp.array([0.0])}
  ones = {k: jnp.ones(1) for k in start}
  optimizer = selective_projection(moving(back), 1.0)
  updates, _ = optimizer.update(ones, state, far)
  assert float(updates["backbone"][0]) == -1.0  # ‖ŵ − w0‖ < ‖w − w0‖: r = 0


def ftp_in_numpy(start, gradients, *, eta, rate, shrink):
  """The algorithm for one tensor under SGD, in float64."""
  w, gamma, direction, m, v, t = start, SMALLEST, None, 0.0, 0.0, 0
  for gradient in gradients:
    if direction is not None:
      slope = float(np.sum(gradient * direction))
      slope *= shrink if slope > 0 else 1.0
      t += 1
      m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
      step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
      gamma = gamma - rate * step
    delta = w - eta * gradient - start
    length = np.linalg.norm(delta)
    gamma = min(max(gamma, SMALLEST), max(length, SMALLEST))
    w = start + min(1.0, gamma / length) * delta
    direction = delta / length
    yield w


@pytest.mark.parametrize("shrink", [1.0, 0.0])
def test_ftp_is_the_algorithm_in_numpy(rng, shrink):
  shapes = {"a": (3, 2), "b": (4,)}
  start = {k: rng.standard_normal(s) for k, s in shapes.items()}
  # A drift, so that radii grow, and noise, so that they also shrink.
  gradients = [
    {k: 0.5 + rng.standard_normal(s) for k, s in shapes.items()}
    for _ in range(12)
  ]
  eta, rate = 0.05, 0.02
  optimizer = trainable_projection(optax.sgd(eta), rate, shrink)

  def as_params(tree):
    leaves = {k: jnp.asarray(x, jnp.float32) for k, x in tree.items()}
    return {"backbone": leaves, "head": jnp.asarray(tree["b"], jnp.float32)}

  steps = list(
    walk(optimizer, as_params(start), [as_params(g) for g in gradients])
  )
  for key in shapes:
    expected = ftp_in_numpy(
      start[key],
      [g[key] for g in gradients],
      eta=eta,
      rate=rate,
      shrink=shrink,
    )
    for got, wanted in zip(steps, expected, strict=True):
      np.testing.assert_allclose(got["backbone"][key], wanted, atol=1e-5)
  free = start["b"] - eta * sum(g["b"] for g in gradients)
  np.testing.assert_allclose(steps[-1]["head"], free, atol=1e-5)


def test_ftp_never_leaves_the_reach_of_its_radius():
  # γ grows by at most the rate at each step but the first.
  params = {"backbone": jnp.zeros(3), "head": jnp.zeros(1)}
  gradient = {"backbone": -jnp.ones(3), "head": jnp.ones(1)}
  optimizer = trainable_projection(optax.sgd(10.0), 0.5, 1.0)
  for step, now in enumerate(walk(optimizer, params, [gradient] * 5)):
    distance = float(jnp.linalg.norm(now["backbone"]))
    assert distance == pytest.approx(0.5 * step, rel=1e-5, abs=2 * SMALLEST)


def test_l2_sp_stands_before_the_other_methods_optimizer():
  params = {"backbone": jnp.array(1.0), "head": jnp.array(1.0)}
  schedule = Schedule(10, warmup=0)
  transform = L2SP().transform(params, schedule, jax.random.key(0))
  state = transform.init(params)
  zeros = optax.tree.zeros_like(params)
  moved = {"backbone": jnp.array(3.0), "head": jnp.array(1.0)}
  updates, _ = transform.update(zeros, state, moved)
  # Adam normalises: each leaf moves back by the learning rate.
  rate = L2SP().of.learning_rate
  for leaf in jax.tree.leaves(updates):
    assert float(leaf) == pytest.approx(-rate, rel=1e-4)
