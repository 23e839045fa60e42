"""Accuracy under shift: aggregates, and robustness beyond what ID explains."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy import special


def out_of_distribution(accuracies: Mapping[str, float]) -> dict[str, float]:
  """Mean and worst over domains, each counted once whatever its size.

  Args:
    accuracies: By domain, in [0, 1]; at least one.

  Returns:
    ``mean_ood`` and ``worst_ood``.

  Raises:
    ValueError: If there is no domain.
  """
  if not accuracies:
    raise ValueError("there is no out-of-distribution domain.")
  values = list(accuracies.values())
  return {"mean_ood": float(np.mean(values)), "worst_ood": float(min(values))}


def mean_corruption_accuracy(accuracies: Mapping[str, float]) -> float:
  """The plain mean over corruptions and severities, in [0, 1].

  Not ImageNet-C's mCE, which divides by AlexNet's errors.

  Args:
    accuracies: By names "<corruption>/<severity>".

  Raises:
    ValueError: If there are none, or a corruption lacks a severity that another
      one has: the mean would then favour some.
  """
  by_corruption: dict[str, set[str]] = {}
  for name in accuracies:
    corruption, slash, severity = name.rpartition("/")
    if not slash:
      raise ValueError(f"expected '<corruption>/<severity>', got {name!r}.")
    by_corruption.setdefault(corruption, set()).add(severity)
  if not by_corruption:
    raise ValueError("there are no corruptions.")
  severities = set.union(*by_corruption.values())
  for corruption, has in by_corruption.items():
    if missing := sorted(severities - has):
      raise ValueError(f"{corruption} lacks severity {', '.join(missing)}.")
  return float(np.mean(list(accuracies.values())))


@dataclasses.dataclass(frozen=True)
class Baseline:
  """The OOD accuracy to expect from an ID accuracy.

  logit(shift) = intercept + slope · logit(ID), fitted to standard models: on
  this scale they lie on a line (Taori et al., 2020; Miller et al., 2021). How
  far above it a model lies is its effective robustness.

  Attributes:
    slope: Of the line.
    intercept: Of the line.
    r: The correlation of what it was fitted to. Effective robustness against a
      line that fits badly means little.
    models: How many models it was fitted to.

  Example:
    >>> line = Baseline.fit([0.6, 0.7, 0.8], [0.5, 0.6, 0.7])
    >>> bool(line.effective_robustness(0.7, 0.65) > 0.05)
    True

  References:
    Taori et al., 2020, https://arxiv.org/abs/2007.00644;
    Miller et al., 2021, https://arxiv.org/abs/2107.04649.
  """

  slope: float
  intercept: float
  r: float
  models: int

  @classmethod
  def fit(
    cls, id_accuracies: Sequence[float], shift_accuracies: Sequence[float]
  ) -> Self:
    """Fits the line by least squares on the logit scale.

    Args:
      id_accuracies: Of standard models, in (0, 1). Which models these are
        decides the outcome: give the pool with the number.
      shift_accuracies: Of the same models.

    Raises:
      ValueError: On fewer than three models, different lengths, accuracies of
        0 or 1, or equal ID accuracies.
    """
    x, y = np.asarray(id_accuracies, float), np.asarray(shift_accuracies, float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3:
      raise ValueError(
        "a baseline needs both accuracies of at least three models, got shapes"
        f" {x.shape} and {y.shape}."
      )
    for values in (x, y):
      if not np.all((values > 0) & (values < 1)):
        raise ValueError(f"accuracies must be in (0, 1), got {values}.")
    if np.ptp(x) == 0:
      raise ValueError(f"all ID accuracies are {x[0]}: there is no line.")
    from scipy import stats  # a second, which others shall not wait

    # Its type is a private class without declared attributes.
    line: Any = stats.linregress(special.logit(x), special.logit(y))
    return cls(
      float(line.slope), float(line.intercept), float(line.rvalue), len(x)
    )

  def expected(self, id_accuracy: float) -> float:
    """The accuracy under shift of a standard model, in (0, 1)."""
    if not 0 < id_accuracy < 1:
      raise ValueError(f"id_accuracy must be in (0, 1), got {id_accuracy}.")
    scaled = self.intercept + self.slope * special.logit(id_accuracy)
    return float(special.expit(scaled))

  def effective_robustness(
    self, id_accuracy: float, shift_accuracy: float
  ) -> float:
    """ρ = OOD accuracy − `expected`(ID accuracy)."""
    return shift_accuracy - self.expected(id_accuracy)


def relative_robustness(
  shift_accuracy: float, shift_accuracy_before: float
) -> float:
  """τ: accuracy under shift after an intervention − before it.

  For fine-tuning, before is the zero-shot or linear-probe model. A method can
  have ρ > 0 with τ < 0 by losing ID accuracy: report both.
  """
  return shift_accuracy - shift_accuracy_before
