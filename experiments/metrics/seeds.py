"""Confidence intervals of means over seeds, and of differences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
  """A mean and its confidence interval, of 95 % or another level.

  Attributes:
    mean: Over runs.
    low: The lower end; NaN for a single run.
    high: The upper end; NaN for a single run.
    std: The sample standard deviation (n − 1); NaN for a single run.
    n: How many runs.
  """

  mean: float
  low: float
  high: float
  std: float
  n: int

  def percent(self) -> str:
    """For a table: "70.1 ± 2.1" of a share; a single run has no interval."""
    text = f"{100 * self.mean:.1f}".replace("-0.0", "0.0")
    if self.n > 1:
      text += f" ± {100 * (self.high - self.mean):.1f}"
    return text

  def points(self) -> str:
    """The same of a difference, with its sign: "+2.0 ± 1.1"."""
    text = self.percent()
    return text if text.startswith("-") else f"+{text}"


def interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
  """Student's interval for the mean of independent runs.

  Runs are taken to be normal, which with few seeds cannot be checked. With
  three the interval is ± 2.5 standard deviations and with two ± 9: it does not
  flatter. It speaks of new seeds on the same data, not of new data.

  Args:
    values: One per seed; at least one.
    confidence: In (0, 1).

  Raises:
    ValueError: If there are no values, one is not finite, or on a confidence
      outside (0, 1).

  Example:
    >>> [round(x, 3) for x in interval([0.70, 0.72, 0.74])[:3]]
    [0.72, 0.67, 0.77]
  """
  if not 0 < confidence < 1:
    raise ValueError(f"confidence must be in (0, 1), got {confidence}.")
  data = np.asarray(values, float)
  if data.ndim != 1 or not data.size or not np.isfinite(data).all():
    raise ValueError(f"values must be finite and at least one, got {values}.")
  mean = float(data.mean())
  if len(data) == 1:
    return Interval(mean, math.nan, math.nan, math.nan, 1)
  from scipy import stats  # a second, which reports alone shall wait

  std = float(data.std(ddof=1))
  reach = (
    std
    / math.sqrt(len(data))
    * stats.t.ppf(0.5 + confidence / 2, len(data) - 1)
  )
  return Interval(
    mean, mean - float(reach), mean + float(reach), std, len(data)
  )


class Paired(NamedTuple):
  """A difference between two methods on the same seeds.

  Attributes:
    difference: First minus second, with its interval.
    p_t: Of the paired t-test, two-sided; NaN for a single pair, or if all
      pairs differ by the same amount.
    p_sign: Of the exact sign-flip test: the share of all 2^n ways to swap the
      methods within seeds that give a mean at least as far from 0. It assumes
      no distribution, and cannot be below 2 / 2^n: 0.25 with three seeds, 0.03
      with six.
    seeds: Which were in both.
  """

  difference: Interval
  p_t: float
  p_sign: float
  seeds: tuple[int, ...]


def paired(
  first: Mapping[int, float],
  second: Mapping[int, float],
) -> Paired:
  """Compares two methods seed by seed.

  Seeds decide the held-out images, the order and the masks, so runs of one seed
  share luck, and their difference varies less than either. P-values of many
  comparisons need a correction: `scipy.stats.false_discovery_control`.

  Args:
    first: Of one method, a value by seed.
    second: Of the other. Seeds that only one has are left out.

  Raises:
    ValueError: If no seed is in both.
  """
  seeds = tuple(sorted(first.keys() & second.keys()))
  if not seeds:
    raise ValueError(
      f"no seed is in both: {sorted(first)} and {sorted(second)}."
    )
  a = np.array([first[seed] for seed in seeds])
  b = np.array([second[seed] for seed in seeds])
  difference = interval((a - b).tolist())
  if len(seeds) == 1:
    return Paired(difference, math.nan, math.nan, seeds)
  return Paired(difference, _t_test(a - b), _sign_flip(a - b), seeds)


def _t_test(differences: np.ndarray) -> float:
  if np.ptp(differences) == 0:  # no spread: t is 0 / 0, or infinite
    return 1.0 if differences[0] == 0 else math.nan
  from scipy import stats

  result: Any = stats.ttest_1samp(differences, 0)
  return float(result.pvalue)


def _sign_flip(differences: np.ndarray) -> float:
  from scipy import stats

  result = stats.permutation_test(
    (differences,),
    np.mean,
    permutation_type="samples",
    n_resamples=10_000,  # exact up to 13 seeds, drawn beyond
    rng=np.random.default_rng(0),
  )
  return float(result.pvalue)
