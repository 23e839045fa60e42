"""Tests what holds weights back: L2-SP, SPD and FTP, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.methods.backbone_mask import in_backbone
from experiments.methods.ftp import FTP, SMALLEST, trainable_projection
from experiments.methods.l2_sp import L2SP, add_spring
from experiments.methods.schedule import Schedule
from experiments.methods.spd import selective_projection
from tests.combinations import every_value


def walk(optimizer, params, gradients):
  """The weights after each of some steps."""
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    yield params


def test_in_backbone_excludes_the_head():
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


def mars_in_numpy(start, gradients, moves, *, rate, shrink):
  """FTP as published for one tensor whose first axis counts rows, in float64.

  Nothing but loops over rows, as Tian et al. have it with the MARS norm.
  """
  rows = lambda x: [np.asarray(x, np.float64)] if x.ndim == 1 else list(x)
  start = rows(start)
  w, gamma, before, m, v = list(start), 1e-8, None, 0.0, 0.0
  for t, (gradient, move) in enumerate(zip(gradients, moves, strict=True), 1):
    away = [a + b - c for a, b, c in zip(w, rows(move), start, strict=True)]
    norms = [float(np.abs(row).sum()) + 1e-8 for row in away]
    if before is not None:
      slope = sum(
        float((g * old).sum()) / norm
        for g, (old, norm) in zip(rows(gradient), before, strict=True)
      )
      slope *= shrink if slope > 0 else 1.0
      # Their counter also counts the step that had no gradient for γ.
      m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
      step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
      gamma = min(max(gamma - rate * step, 1e-8), max(norms))
    before = list(zip(away, norms, strict=True))
    w = [
      c + min(max(gamma / norm, 0.0), 1.0) * row
      for c, row, norm in zip(start, away, norms, strict=True)
    ]
    yield np.stack(w) if len(w) > 1 else w[0]


def adamw_in_numpy(gradients, *, eta):
  """What Adam moves a tensor by, whatever the tensor: no weight decay."""
  m, v = 0.0, 0.0
  for t, gradient in enumerate(gradients, 1):
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    yield -eta * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


@pytest.mark.parametrize(
  ("shrink", "optimizer"), every_value([1.0, 0.5], ["sgd", "adam"])
)
def test_ftp_with_its_authors_norm_is_the_algorithm_in_numpy(
  rng, shrink, optimizer
):
  # Rows are first, as in PyTorch; Flax's kernels have them last.
  shapes = {"fc": (3, 5), "patch": (4, 3, 2, 2), "bias": (4,), "token": (3, 2)}
  flax = {"fc": "kernel", "patch": "kernel", "bias": "bias", "token": "weight"}
  start = {k: rng.standard_normal(s) for k, s in shapes.items()}
  gradients = [
    {k: 0.5 + rng.standard_normal(s) for k, s in shapes.items()}
    for _ in range(40)
  ]
  eta, rate = 0.01, 0.02

  def as_params(tree):
    def as_leaf(name):
      turned = np.moveaxis(tree[name], 0, -1)
      leaf = turned if flax[name] == "kernel" else tree[name]
      return {flax[name]: jnp.asarray(leaf, jnp.float32)}

    return {"backbone": {name: as_leaf(name) for name in tree}}

  inner = {"sgd": optax.sgd, "adam": optax.adam}[optimizer](eta)
  tx = FTP(radius_rate=rate, shrink=shrink, norm="mars").wrap(inner)
  steps = list(walk(tx, as_params(start), map(as_params, gradients)))
  held = 0
  for name in shapes:
    own = [g[name] for g in gradients]
    moves = [-eta * g for g in own]
    if optimizer == "adam":
      moves = list(adamw_in_numpy(own, eta=eta))
    expected = list(
      mars_in_numpy(start[name], own, moves, rate=rate, shrink=shrink)
    )
    for got, wanted in zip(steps, expected, strict=True):
      wanted = as_params({name: wanted})["backbone"][name][flax[name]]
      got = got["backbone"][name][flax[name]]
      np.testing.assert_allclose(got, wanted, atol=2e-5)
    free = start[name] + sum(moves)
    held += np.abs(expected[-1] - free).max() > 0.01
  assert held == len(shapes)  # the projection had something to do


def test_the_first_update_of_the_authors_radius_is_below_the_rate():
  # Adam with t = 2 at its first gradient, whatever its size, as published:
  # 0.1/(1 − 0.9²) over the root of 0.001/(1 − 0.999²).
  params = {"backbone": {"kernel": jnp.zeros((3, 1))}}
  gradient = {"backbone": {"kernel": -jnp.ones((3, 1))}}
  reached = {}
  for norm in ("l2", "mars"):
    tx = trainable_projection(optax.sgd(10.0), 0.5, 1.0, norm)
    _, second = walk(tx, params, [gradient] * 2)
    reached[norm] = np.asarray(second["backbone"]["kernel"])
  step = 0.5 * (0.1 / 0.19) / np.sqrt(0.001 / 0.001999)
  assert np.abs(reached["mars"]).sum() == pytest.approx(step, rel=1e-4)
  assert np.linalg.norm(reached["l2"]) == pytest.approx(0.5, rel=1e-4)


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
