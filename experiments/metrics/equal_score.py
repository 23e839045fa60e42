"""OOD accuracy of methods at equal ID score.

The curve of a method is its runs at rising learning rates. Each run has an ID
score, where less is better (Brier or NLL), and an OOD accuracy. With the rate,
the ID score first falls to its best and then rises. The OOD accuracy *at* a
score is that where the curve first comes down to it, interpolated linearly
between two runs. So methods are compared at equal ID quality, independent of
the rule that chooses their rates.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Values = Float[np.ndarray, " runs"]


class Curve(NamedTuple):
  """The runs of one method with one seed, by rising learning rate.

  Attributes:
    id_score: Of each; less is better.
    ood: Accuracy of each.
  """

  id_score: Values
  ood: Values


def first_at(curve: Curve, level: float) -> float:
  """The OOD accuracy where a curve first comes down to an ID score.

  Args:
    curve: At least one run.
    level: The ID score.

  Returns:
    NaN where the curve never gets there, and where its first run is better
    already: nothing is extrapolated. Of equal runs the first counts.

  Raises:
    ValueError: If the curve has no run, or a value is not finite.

  Example:
    >>> import numpy as np
    >>> curve = Curve(np.array([0.4, 0.2, 0.3]), np.array([0.5, 0.7, 0.1]))
    >>> round(first_at(curve, 0.3), 3), first_at(curve, 0.1)
    (0.6, nan)
  """
  x, y = (np.asarray(values, np.float64) for values in curve)
  if x.ndim != 1 or x.shape != y.shape or not x.size:
    raise ValueError(
      "a curve must have as many ID scores as OOD accuracies, at least one,"
      f" got shapes {x.shape} and {y.shape}."
    )
  if not (np.isfinite(x).all() and np.isfinite(y).all()):
    raise ValueError(f"a curve must be finite, got {x} and {y}.")
  if x[0] <= level:
    return float(y[0]) if x[0] == level else math.nan
  for i in range(1, len(x)):
    if x[i] <= level:
      share = (x[i - 1] - level) / (x[i - 1] - x[i])
      return float(y[i - 1] + share * (y[i] - y[i - 1]))
  return math.nan


def levels(
  curves: Mapping[int, Curve], count: int = 5
) -> dict[int, tuple[float, ...]]:
  """ID scores that the curves of a method come down to, seed by seed.

  Where seeds hold out other images, their scores are not of one scale: the best
  of one may be out of reach for another. So every seed has its own, by the same
  steps down from its first run.

  Args:
    curves: By seed.
    count: How many, at least 1.

  Returns:
    By seed, the best last: equally far apart, from the score of the first run,
    which is left out, down by as much as every seed's curve comes down. Empty
    where the first run of some seed is its best.

  Example:
    >>> import numpy as np
    >>> easy = Curve(np.array([0.4, 0.2, 0.3]), np.array([0.5, 0.7, 0.1]))
    >>> hard = Curve(np.array([0.9, 0.6, 0.5]), np.array([0.4, 0.5, 0.3]))
    >>> for seed, own in levels({0: easy, 1: hard}, 2).items():
    ...   print(seed, [round(level, 2) for level in own])
    0 [0.3, 0.2]
    1 [0.8, 0.7]
  """
  starts = {seed: float(each.id_score[0]) for seed, each in curves.items()}
  falls = [
    starts[seed] - float(np.min(each.id_score)) for seed, each in curves.items()
  ]
  fall = min(falls, default=0.0)
  if not fall > 0:
    return {}
  found = {}
  for seed, start in starts.items():
    own = np.linspace(start, start - fall, count + 1)[1:]
    # Rounding must not put the last below what it is the best of.
    found[seed] = tuple(np.maximum(own, np.min(curves[seed].id_score)).tolist())
  return found


def at_levels(
  curves: Mapping[int, Curve], wanted: Mapping[int, Sequence[float]]
) -> list[dict[int, float]]:
  """The OOD accuracies at some ID scores, by seed.

  Args:
    curves: Of a method, by seed.
    wanted: As many ID scores for every seed.

  Returns:
    One dict for the first scores of all seeds, one for the second, and so on,
    without the seeds that lack a curve, or whose curve does not get there.
  """
  found = []
  for each in zip(*wanted.values(), strict=True):
    values = {
      seed: first_at(curves[seed], level)
      for seed, level in zip(wanted, each, strict=True)
      if seed in curves
    }
    found.append({s: v for s, v in values.items() if not math.isnan(v)})
  return found


def means(wanted: Mapping[int, Sequence[float]]) -> tuple[float, ...]:
  """Of the first ID scores over seeds, of the second, and so on."""
  return tuple(
    float(np.mean(each)) for each in zip(*wanted.values(), strict=True)
  )
