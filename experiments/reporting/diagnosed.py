"""The report's tables and pictures of lines of `experiments.diagnostics`."""

import json
import math
from collections.abc import Mapping, Sequence

from matplotlib import figure

from experiments.reporting import diagnosed_figures, display_names, records
from experiments.reporting.document import Table
from experiments.reporting.entries import labels, task_of
from experiments.reporting.knobs import KNOBS, RATE, without

_SCORES = {
  "bias2": "bias²",
  "variance": "variance",
  "covariance": "covariance",
  "member": "Brier, member",
  "ensemble": "Brier, ensemble",
  "average": "Brier, weight average",
  "deployed": "Brier, evaluation weights",
  "residual": "average − ensemble",
}
_DIVERSITY = {
  "disagreement": "disagreement",
  "ratio_error": "ratio-error",
  "cka_1m": "1 − CKA",
}
_WEIGHTS = {
  "locality": "locality",
  "relative_locality": "over ‖θ₀‖²",
  "angle": "angle of members (°)",
}

BVCL_CAPTION = (
  "Bias, variance, covariance and locality of the implicit ensemble: means over"
  " seeds with 95 % intervals; OOD is the mean over shifts."
)


def check_landscape(record: records.Record, name: str) -> None:
  """Sees whether a record is a line of landscape.

  Raises:
    ValueError: If it lacks something; it is named.
  """
  found = record["landscape"]
  if not isinstance(found, dict) or "plane" not in found:
    raise ValueError(f"{name} is no line of landscape: it lacks 'plane'.")
  _ = task_of(record["config"]), int(record["seed"])


def tables(results: Sequence[records.Record]) -> list[Table]:
  """The terms ID and OOD, and diversity, of lines of bvcl, task by task."""
  by_task: dict[str, list[records.Record]] = {}
  for record in results:
    by_task.setdefault(_on(record["config"]), []).append(record)
  return [table for on, of in by_task.items() for table in _tables(of, on)]


def _on(config: records.Record) -> str:
  """What a title adds to name the task; nothing of the demo's digits."""
  task = task_of(config)
  return "" if task in ("", "scanned_digits") else f", on {task}"


def _tables(results: Sequence[records.Record], on: str) -> list[Table]:
  names = labels([record["config"] for record in results])
  note = (
    "Brier scores, mean over seeds ± half its 95 % interval. The ensemble's is"
    " bias² + variance / M + (M − 1) / M · covariance."
  )
  found = [
    Table(
      f"Bias, variance, covariance: {words}{on}",
      note,
      ("method", *_SCORES.values()),
      [
        (name, *(_cell(record["bvcl"][where][term]) for term in _SCORES))
        for name, record in zip(names, results, strict=True)
      ],
    )
    for where, words in (
      ("id", "in distribution"),
      ("ood", "out of distribution, mean over shifts"),
    )
  ]
  rows = []
  for name, record in zip(names, results, strict=True):
    terms = record["bvcl"]
    rows.append(
      (
        name,
        *(_cell(terms["ood"][term]) for term in _DIVERSITY),
        *(_cell(terms["weights"][term]) for term in _WEIGHTS),
        f"{terms['angle_of_runs']:.1f}",
      )
    )
  header = ("method", *_DIVERSITY.values(), *_WEIGHTS.values())
  found.append(
    Table(
      f"Diversity of members and their distance{on}",
      "Over pairs of members of a run, out of distribution, and in weight"
      " space; mean over seeds ± half its 95 % interval. Angles are between"
      " residuals θ − θ₀.",
      (*header, "angle of runs (°)"),
      rows,
    )
  )
  return found


_SUMMARY = ("bias2", "variance", "covariance", "member", "ensemble",
            "deployed", "residual")  # fmt: skip


def summary(results: Sequence[records.Record]) -> Table:
  """The terms out of distribution, and disagreement, whatever the rates."""
  configs = [without(record["config"], RATE) for record in results]
  rows = []
  for name, record in zip(labels(configs), results, strict=True):
    terms = record["bvcl"]["ood"]
    found = [terms[term] for term in (*_SUMMARY, "disagreement")]
    cells = [f"{each['mean']:.3f} ± {_half(each):.3f}" for each in found]
    rows.append((name, *(cell.replace("0.", ".") for cell in cells)))
  words = [_SCORES[term].removeprefix("Brier, ") for term in _SUMMARY]
  return Table("", "", ("", *words, "disagreement"), rows)


def _half(found: Mapping[str, float]) -> float:
  """Of an interval."""
  return (found["high"] - found["low"]) / 2


def _cell(found: Mapping[str, float] | None) -> str:
  if found is None:
    return "–"
  half = _half(found)
  # Two digits of the interval are known at best, and no more of the mean.
  digits = max(0, 1 - math.floor(math.log10(half))) if half else 4
  return f"{found['mean']:.{digits}f} ± {half:.{digits}f}"


def curves(
  results: Sequence[records.Record],
) -> list[tuple[str, list[records.Record]]]:
  """Lines of bvcl that differ in one knob alone: knob and lines, at least two.

  Of a setting that was measured twice the last line counts.
  """
  latest = {json.dumps(r["config"], sort_keys=True): r for r in results}
  found = []
  for knob in KNOBS:
    groups: dict[str, list[records.Record]] = {}
    for record in latest.values():
      config = record["config"]
      method = {k: v for k, v in config["method"].items() if k != knob}
      rest = {**config, "method": method, "seeds": record["seeds"]}
      groups.setdefault(json.dumps(rest, sort_keys=True), []).append(record)
    found += [(knob, same) for same in groups.values() if len(same) > 1]
  return found


def draw(
  bvcl: Sequence[records.Record], landscapes: Sequence[records.Record]
) -> dict[str, tuple[str, figure.Figure]]:
  """Caption and picture by name."""
  drawn: dict[str, tuple[str, figure.Figure]] = {}

  def add(name: str, caption: str, picture: figure.Figure) -> None:
    while name in drawn:
      name += "_more"
    drawn[name] = caption, picture

  for knob, same in curves(bvcl):
    config = same[0]["config"]
    method = config["method"]["name"]
    add(
      f"bvcl_{method}_{knob}",
      f"{display_names.title(method)}, {display_names.axis(knob)}"
      f"{_on(config)}. {BVCL_CAPTION}",
      diagnosed_figures.terms(same, knob, _on(config)),
    )
  for record in landscapes:
    found, task = record["landscape"], task_of(record["config"])
    start = diagnosed_figures.start_of(found)
    add(
      "lines",
      f"{task}. Accuracy on the lines from {start} to fine-tuned weights,"
      f" seed {record['seed']}.",
      diagnosed_figures.line(found),
    )
    add(
      "plane",
      f"{task}. Accuracy on the plane through the {start} weights, those of"
      " full fine-tuning and GMixout's anchor; distances are those of weight"
      f" space. Seed {record['seed']}.",
      diagnosed_figures.plane(found["plane"]),
    )
  return drawn
