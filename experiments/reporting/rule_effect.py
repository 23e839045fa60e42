"""What it changes to choose rates by the rule, and not by the best accuracy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.reporting import chosen_rates
from experiments.reporting.entries import Entry
from experiments.reporting.knobs import RATE


class Effect(NamedTuple):
  """Means over methods that ran at several learning rates, in [0, 1].

  Attributes:
    methods: How many these are.
    best_id: ID accuracy at the rates of the best validation accuracy.
    best_ood: OOD accuracy there.
    chosen_id: ID accuracy at the rates that the rule chooses, the smallest
      within one standard error of the best.
    chosen_ood: OOD accuracy there.
    with_smaller: How many methods also ran at a smaller rate than the best.
    smaller_better: How many of these were better OOD at the next smaller one.
  """

  methods: int
  best_id: float
  best_ood: float
  chosen_id: float
  chosen_ood: float
  with_smaller: int
  smaller_better: int


def effect(entries: Sequence[Entry]) -> Effect:
  """Compares the rule with the best validation accuracy, method by method.

  WiSE-FT, whose curve is over another setting, is left out.

  Args:
    entries: Of one task, all that ran.

  Raises:
    ValueError: If no method was tested OOD at several rates.
  """
  best, chosen, smaller = [], [], []
  for same in chosen_rates.curves(entries):
    wise_ft = chosen_rates.knob_of(same) != RATE
    if len(same) < 2 or wise_ft or not all(e.has_targets for e in same):
      continue
    seeds = sorted(set.intersection(*(set(entry.runs) for entry in same)))
    if not seeds:
      continue
    picked, accuracies = chosen_rates.pick(
      [[entry.runs[seed] for seed in seeds] for entry in same]
    )
    top = int(np.argmax(accuracies))
    points = [_point(entry, seeds) for entry in same]
    best.append(points[top])
    chosen.append(points[picked])
    if top:
      smaller.append(points[top - 1][1] > points[top][1])
  if not best:
    raise ValueError("no method was tested OOD at several learning rates.")
  best_id, best_ood = np.mean(best, 0).tolist()
  chosen_id, chosen_ood = np.mean(chosen, 0).tolist()
  return Effect(
    methods=len(best),
    best_id=best_id,
    best_ood=best_ood,
    chosen_id=chosen_id,
    chosen_ood=chosen_ood,
    with_smaller=len(smaller),
    smaller_better=sum(smaller),
  )


def _point(entry: Entry, seeds: Sequence[int]) -> tuple[float, float]:
  """ID and OOD accuracy, means over seeds."""
  found = [entry.runs[seed]["metrics"] for seed in seeds]
  return (
    float(np.mean([each["id"] for each in found])),
    float(np.mean([each["mean_ood"] for each in found])),
  )
