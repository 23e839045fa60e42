"""GMixout and Mixout in float64 NumPy, written from the paper's equations.

Dense throughout, residual form: W = A + M⊙Δ/s. Masks are given, and the inner
optimizers are written out, so that nothing here shares code with the library.
"""

import numpy as np


class Sgd:
  """Plain gradient descent on the residual, with decay towards the anchor."""

  def __init__(self, slots, learning_rate, weight_decay=0.0):
    self.learning_rate, self.weight_decay = learning_rate, weight_decay

  def step(self, gradient, residual):
    return -self.learning_rate * (gradient + self.weight_decay * residual)


class AdamW:
  """Adam (Kingma & Ba, 2015) with decoupled decay, over numbered slots."""

  def __init__(self, slots, learning_rate, weight_decay=0.0):
    self.learning_rate, self.weight_decay = learning_rate, weight_decay
    self.restart(slots)

  def restart(self, slots):
    self.m, self.v, self.t = np.zeros(slots), np.zeros(slots), 0

  def step(self, gradient, residual):
    self.t += 1
    self.m = 0.9 * self.m + 0.1 * gradient
    self.v = 0.999 * self.v + 0.001 * gradient**2
    m = self.m / (1 - 0.9**self.t)
    v = self.v / (1 - 0.999**self.t)
    direction = m / (np.sqrt(v) + 1e-8) + self.weight_decay * residual
    return -self.learning_rate * direction


def gmixout(weights, gradient, masks, *, inner, slots, s, decay, period, steps,
            restart=False, order=None):  # fmt: skip
  """Yields (trained, evaluated) after each step of GMixout on one matrix.

  Args:
    weights: Pretrained matrix, the first anchor.
    gradient: Function weights -> gradient of the loss.
    masks: Function episode -> boolean matrix.
    inner: `Sgd` or `AdamW` over `slots` packed entries.
    slots: Number of packed entries.
    s: Kept fraction that divides the residual.
    decay: Function episode -> λ.
    period: Function episode -> steps.
    steps: Number of steps.
    restart: Whether moments restart with each episode.
    order: Function episode -> flat positions of the active entries, slot by
      slot; None for row by row.
  """
  anchor = weights.astype(np.float64)
  residual = np.zeros_like(anchor)
  episode, left = 0, period(0)
  for _ in range(steps):
    mask = masks(episode)
    active = order(episode) if order else np.flatnonzero(mask)
    trained = anchor + mask * residual / s
    packed = np.zeros(slots)
    packed[: active.size] = (gradient(trained) / s).flat[active]
    packed_residual = np.zeros(slots)
    packed_residual[: active.size] = residual.flat[active]
    step = inner.step(packed, packed_residual)[: active.size]
    residual.flat[active] += step
    lam = decay(episode)
    evaluated = anchor + (1 - lam) * residual
    left -= 1
    if left == 0:
      anchor = lam * anchor + (1 - lam) * (anchor + residual)
      residual = np.zeros_like(anchor)
      episode += 1
      left = period(episode)
      mask = masks(episode)
      if restart:
        inner.restart(slots)
    yield anchor + mask * residual / s, evaluated


def mixout(weights, gradient, masks, *, inner, s, steps):
  """Yields (trained, learned) after each step of Mixout on one matrix.

  The forward pass is the one of Lee et al. (2020), in their form: swap masked
  entries for the pretrained ones, then correct the mean.
  """
  target = weights.astype(np.float64)
  learned = target.copy()
  for step in range(steps):
    mask = masks(step)
    mixed = mix(learned, target, mask, s)
    update = inner.step(
      (mask * gradient(mixed) / s).ravel(), (learned - target).ravel()
    )
    learned = learned + update.reshape(target.shape)
    yield mix(learned, target, masks(step + 1), s), learned


def mix(learned, target, mask, s):
  """((1 − swap)·w + swap·target − p·target) / (1 − p), swap = not mask."""
  swapped = np.where(mask, learned, target)
  return (swapped - (1 - s) * target) / s
