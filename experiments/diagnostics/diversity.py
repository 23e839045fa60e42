"""How the members of an ensemble differ: predictions, features, weights.

References:
  Rame et al., 2022, https://arxiv.org/abs/2205.09739 (ratio-error, CKA);
  Kornblith et al., 2019, https://arxiv.org/abs/1905.00414 (CKA);
  Nguyen et al., 2021, https://arxiv.org/abs/2010.15327 (unbiased HSIC);
  Wortsman et al., 2022, https://arxiv.org/abs/2203.05482 (angle).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from experiments.diagnostics.landscape import flat

FEWEST = 4
"""Images that unbiased CKA needs."""


def over_pairs[T](
  measure: Callable[[T, T], float], members: Sequence[T]
) -> float:
  """The mean of a symmetric measure over all pairs of members.

  Raises:
    ValueError: With fewer than two members.
  """
  if len(members) < 2:
    raise ValueError(f"pairs need at least two members, got {len(members)}.")
  pairs = itertools.combinations(members, 2)
  return float(np.mean([measure(a, b) for a, b in pairs]))


def disagreement(
  first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]
) -> float:
  """The share of images that two members call differently, in [0, 1]."""
  return float(np.mean(np.asarray(first) != np.asarray(second)))


def ratio_error(
  first: Int[np.ndarray, " n"],
  second: Int[np.ndarray, " n"],
  labels: Int[np.ndarray, " n"],
) -> float:
  """N_diff / N_simul: both wrong and different, over both wrong and alike.

  At least 0; NaN if the two are never both wrong in the same way.
  """
  first, second = np.asarray(first), np.asarray(second)
  both = (first != labels) & (second != labels)
  alike = int(np.sum(both & (first == second)))
  different = int(np.sum(both & (first != second)))
  return different / alike if alike else math.nan


def unbiased_cka(
  first: Float[np.ndarray, "n a"],
  second: Float[np.ndarray, "n b"],
  *,
  batch: int = 256,
) -> float:
  """Linear centred kernel alignment of features; at most 1, can be below 0.

  From the unbiased HSIC₁ of minibatches. Diversity is 1 − CKA. The plain
  estimate, ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features, is near 1 for any two
  sets of more features than images.

  Args:
    first: Features of the same images.
    second: Likewise.
    batch: Images per minibatch, at least 4; a last one of fewer is left out.

  Raises:
    ValueError: If the features do not belong to the same images, those of one
      member do not vary, or there are fewer than 4 images.
  """
  x, y = _features(first, second)
  size = min(batch, len(x))
  if size < FEWEST:
    raise ValueError(
      f"unbiased CKA needs at least {FEWEST} images, got {size}."
    )
  sums = np.zeros(3)
  for start in range(0, len(x) - size + 1, size):
    k = x[start : start + size] @ x[start : start + size].T
    l = y[start : start + size] @ y[start : start + size].T  # noqa: E741
    sums += (_hsic1(k, l), _hsic1(k, k), _hsic1(l, l))
  if sums[1] <= 0 or sums[2] <= 0:
    raise ValueError("the features hardly vary over images.")
  return float(sums[0] / np.sqrt(sums[1] * sums[2]))


def _hsic1(k: np.ndarray, m: np.ndarray) -> float:
  """Song et al.'s unbiased estimator of HSIC, of two Gram matrices."""
  n = len(k)
  k, m = k.copy(), m.copy()
  np.fill_diagonal(k, 0)
  np.fill_diagonal(m, 0)
  total = np.sum(k * m)
  total += k.sum() * m.sum() / ((n - 1) * (n - 2))
  total -= 2 / (n - 2) * (k.sum(axis=0) @ m.sum(axis=0))
  return float(total / (n * (n - 3)))


def _features(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
  x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
  if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
    raise ValueError(
      f"features must be [n, width] of the same n, got {x.shape}, {y.shape}."
    )
  return x, y


def angle(first: Any, second: Any, origin: Any) -> float:
  """The angle between two residuals θ − θ_0, in degrees.

  Args:
    first: A pytree of weights.
    second: Another.
    origin: θ_0, from which both were trained.

  Raises:
    ValueError: If one of them did not move.
  """
  a, b = (flat(member) - flat(origin) for member in (first, second))
  norms = np.linalg.norm(a) * np.linalg.norm(b)
  if norms == 0:
    raise ValueError("a member has the weights it started from.")
  return float(np.degrees(np.arccos(np.clip(a @ b / norms, -1, 1))))
