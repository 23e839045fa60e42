"""OOD accuracy at equal ID score: methods against full fine-tuning.

Every method has a curve through its learning rates (WiSE-FT through its α), and
is compared where it is as good in distribution as full fine-tuning: see
`experiments.metrics.equal_score`. Differences are paired by seed, and each seed
is compared at ID scores of its own.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from experiments import metrics
from experiments.metrics import equal_score
from experiments.metrics.equal_score import Curve
from experiments.reporting import chosen_rates, records
from experiments.reporting.display_names import FULL, title
from experiments.reporting.entries import Entry, corrected, labels
from experiments.reporting.knobs import without
from experiments.reporting.records import Record

Score = Literal["brier", "nll"]
"""Of the images that ID accuracy is of; less is better."""

HEADER = (
  *("task", "method", "id_score", "ood", "difference"),
  *("low", "high", "p", "seeds"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class MethodCurve:
  """The runs of a method at all its learning rates.

  Attributes:
    method: Its name.
    label: What to call it; unique in a comparison.
    config: Of its first runs, without the learning rate.
    runs: The ID scores and OOD accuracies by seed.
  """

  method: str
  label: str
  config: Record
  runs: Mapping[int, Curve]

  @property
  def steps(self) -> int:
    """Of a run."""
    return int(self.config.get("steps", 0))


class AtScore(NamedTuple):
  """A method at one ID score of every seed.

  Attributes:
    method: As a curve's label.
    id_score: The score, a mean over all seeds.
    ood: Mean accuracy over the seeds that get there.
    paired: The difference from the reference on the seeds of both; None of the
      reference itself, and where no seed is in both.
    p: Of its t-test, corrected for all rows of the task (Benjamini and
      Hochberg); NaN where there is none.
    seeds: How many get there.
  """

  method: str
  id_score: float
  ood: float
  paired: metrics.Paired | None
  p: float
  seeds: int


class Overall(NamedTuple):
  """A method at all ID scores together.

  Attributes:
    curve: Of the method.
    paired: The difference from the reference, a mean over the ID scores that
      both curves of a seed get to.
    p: Of its t-test, corrected for the methods of the task; NaN if there is
      none.
    reached: At how many of the ID scores some seed of it is.
  """

  curve: MethodCurve
  paired: metrics.Paired
  p: float
  reached: int


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
  """The methods of one task.

  Attributes:
    task: What it is called.
    reference: The curve of full fine-tuning.
    others: The others'.
    levels: The ID scores that are compared at, means over seeds.
    rows: Method by method, the reference first.
    overall: Of the others that share two seeds with the reference at some ID
      score, the best first.
  """

  task: str
  reference: MethodCurve
  others: tuple[MethodCurve, ...]
  levels: tuple[float, ...]
  rows: tuple[AtScore, ...]
  overall: tuple[Overall, ...]


def compare(
  tasks: Mapping[str, Sequence[Entry]], score: Score = "brier"
) -> list[Comparison]:
  """Every task on which full fine-tuning has a curve.

  What ran for other steps than any full fine-tuning is compared with that of
  the most steps below, and says its own. What saw the input of 0.1.0 stays out.

  Args:
    tasks: Configurations by task, from `entries.by_task`.
    score: By which ID score.
  """
  found = {task: curves(entries, score) for task, entries in tasks.items()}
  references = {
    task: curve
    for task, own in found.items()
    for curve in own
    if curve.method == FULL
  }
  others: dict[str, list[MethodCurve]] = {task: [] for task in references}
  for task, own in found.items():
    for curve in own:
      if task in references:
        others[task] += [curve] if curve is not references[task] else []
        continue
      fits = [
        (reference.steps, name)
        for name, reference in references.items()
        if _but_for_steps(reference) == _but_for_steps(curve)
        and reference.steps <= curve.steps
      ]
      if fits:
        others[max(fits)[1]].append(curve)
  return [
    _compared(task, *_labelled([reference, *others[task]]))
    for task, reference in references.items()
    if others[task]
  ]


def _labelled(
  compared: Sequence[MethodCurve],
) -> tuple[MethodCurve, list[MethodCurve]]:
  """The first, and the others, of which some may be of other steps."""
  names = labels([{"method": curve.config["method"]} for curve in compared])
  reference, *others = (
    dataclasses.replace(
      curve,
      label=name
      if curve.steps == compared[0].steps
      else f"{name}, {curve.steps} steps",
    )
    for curve, name in zip(compared, names, strict=True)
  )
  return reference, others


def curves(entries: Sequence[Entry], score: Score) -> list[MethodCurve]:
  """The curves of entries that were tested out of distribution.

  Those of a single run, and of runs that lack the score, are left out.
  """
  tested = [
    entry
    for entry in entries
    if entry.has_targets
    and not records.is_of_squares(entry.config)
    and all(_score(run, score) is not None for run in entry.runs.values())
  ]
  groups = [same for same in chosen_rates.curves(tested) if len(same) > 1]
  found = []
  for same in groups:
    seeds = set.intersection(*(set(entry.runs) for entry in same))
    runs = {
      seed: Curve(
        np.array([_score(entry.runs[seed], score) for entry in same]),
        np.array([entry.runs[seed]["metrics"]["mean_ood"] for entry in same]),
      )
      for seed in sorted(seeds)
    }
    method = same[0].method
    config = without(same[0].config, chosen_rates.knob_of(same))
    found.append(MethodCurve(method, title(method), config, runs))
  return found


def _score(run: Record, score: Score) -> float | None:
  return run["metrics"].get("details", {}).get("id", {}).get(score)


def _but_for_steps(curve: MethodCurve) -> str:
  """All but method and length."""
  rest = {
    key: value
    for key, value in curve.config.items()
    if key not in ("method", "steps")
  }
  return json.dumps(records.comparable(rest), sort_keys=True)


def _compared(
  task: str, reference: MethodCurve, others: Sequence[MethodCurve]
) -> Comparison:
  wanted = equal_score.levels(reference.runs)
  levels = equal_score.means(wanted)
  base = equal_score.at_levels(reference.runs, wanted)
  rows: list[AtScore] = []
  for curve in (reference, *others):
    for level, at_base, own in zip(
      levels, base, equal_score.at_levels(curve.runs, wanted), strict=True
    ):
      if not own:
        continue
      both = own.keys() & at_base.keys()
      paired = None
      if curve is not reference and both:
        paired = metrics.paired(own, at_base)
      mean = float(np.mean(list(own.values())))
      rows.append(AtScore(curve.label, level, mean, paired, np.nan, len(own)))
  p = corrected([r.paired.p_t if r.paired else np.nan for r in rows])
  return Comparison(
    task,
    reference,
    tuple(others),
    levels,
    tuple(row._replace(p=q) for row, q in zip(rows, p, strict=True)),
    _overall(base, others, wanted),
  )


def _overall(
  base: Sequence[Mapping[int, float]],
  others: Sequence[MethodCurve],
  wanted: Mapping[int, Sequence[float]],
) -> tuple[Overall, ...]:
  found = []
  for curve in others:
    own = equal_score.at_levels(curve.runs, wanted)
    by_seed: dict[int, list[float]] = {}
    for here, there in zip(own, base, strict=True):
      for seed in here.keys() & there.keys():
        by_seed.setdefault(seed, []).append(here[seed] - there[seed])
    if len(by_seed) > 1:
      means = {seed: float(np.mean(each)) for seed, each in by_seed.items()}
      paired = metrics.paired(means, dict.fromkeys(means, 0.0))
      reached = sum(bool(values) for values in own)
      found.append(Overall(curve, paired, np.nan, reached))
  p = corrected([each.paired.p_t for each in found])
  found = [each._replace(p=q) for each, q in zip(found, p, strict=True)]
  return tuple(sorted(found, key=lambda each: -each.paired.difference.mean))


def to_csv(comparisons: Sequence[Comparison]) -> str:
  """The rows of all tasks, shares in [0, 1]; empty where there is no number."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(HEADER)
  shown = lambda value: "" if np.isnan(value) else f"{value:.6g}"
  for comparison in comparisons:
    for row in comparison.rows:
      cells = ("", "", "")
      if row.paired is not None:
        cells = map(shown, row.paired.difference[:3])
      writer.writerow(
        (
          *(comparison.task, row.method, shown(row.id_score), shown(row.ood)),
          *(*cells, shown(row.p), row.seeds),
        )
      )
  return text.getvalue()
