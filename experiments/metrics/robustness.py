"""Accuracy under shift: aggregates, and what fine-tuning adds to it."""

from collections.abc import Mapping

import numpy as np


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


def relative_robustness(
  shift_accuracy: float, shift_accuracy_before: float
) -> float:
  """τ: accuracy under shift after an intervention − before it.

  For fine-tuning, before is the zero-shot or linear-probe model. τ is that of
  Taori et al., 2020, https://arxiv.org/abs/2007.00644.
  """
  return shift_accuracy - shift_accuracy_before
