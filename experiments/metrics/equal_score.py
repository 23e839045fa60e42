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


def levels(curves: Mapping[int, Curve], count: int = 5) -> tuple[float, ...]:
  """ID scores that every seed's curve of a method comes down to.

  Args:
    curves: By seed.
    count: How many, at least 1.

  Returns:
    The best of them last, equally far apart: from the worst score that all
    seeds begin above, which is left out, to the best that all of them reach.
    Empty where there is no such range.
  """
  if not curves:
    return ()
  worst = min(float(curve.id_score[0]) for curve in curves.values())
  best = max(float(np.min(curve.id_score)) for curve in curves.values())
  if not best < worst:
    return ()
  return tuple(np.linspace(worst, best, count + 1)[1:].tolist())


def at_levels(
  curves: Mapping[int, Curve], wanted: Sequence[float]
) -> list[dict[int, float]]:
  """The OOD accuracies at some ID scores, by seed.

  Returns:
    One dict a level, without the seeds whose curve does not get there.
  """
  found = []
  for level in wanted:
    values = {seed: first_at(curve, level) for seed, curve in curves.items()}
    found.append({s: v for s, v in values.items() if not math.isnan(v)})
  return found
