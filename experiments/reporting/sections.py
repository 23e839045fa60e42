"""The sections of a report: one for each task, in the order of its questions.

First is OOD accuracy at equal ID score, then accuracy against cost, then the
tables at the learning rates that validation accuracy has chosen, and one figure
for each setting that was varied.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib import figure

from experiments.reporting import (
  accuracy_figure,
  bound_figure,
  chosen_rates,
  cost_figure,
  display_names,
  document,
  equal_id,
  equal_id_figure,
  figures,
  knob_figures,
  rates_table,
)
from experiments.reporting.document import Picture, Section, Table
from experiments.reporting.entries import Entry, by_task
from experiments.reporting.equal_id import Comparison, Score
from experiments.reporting.records import Record

RULE = (
  "of several learning rates (of WiSE-FT: of several α) the smallest whose"
  " validation accuracy is within one standard error of the best"
)

_DIAGRAMS = 16

_CAPTIONS = {
  "ood_against_id": "Out-of-distribution against in-distribution accuracy:"
  " means over seeds with 95 % intervals; the star and the dotted line are"
  " zero-shot.",
  "reliability": "Reliability, one configuration a method: accuracy against"
  " confidence in 15 bins, all seeds and domains together, as is the ECE here."
  " The area of a marker is the share of images; bins of fewer than ten are not"
  " drawn.",
  "accuracy": "Accuracy of every method: means over seeds with 95 % intervals;"
  " the dotted line is zero-shot.",
  "progress_bound": "GMixout's accuracy against the bound on how far its"
  " anchor can come: 1 − (1 − (1 − λ) s)^(T/k) of the way, without rescaling"
  " 1 − λ^(T/k); exact for the outputs of a linear model. Lines are zero-shot"
  " and full fine-tuning.",
  "cost": "Out-of-distribution accuracy against what a step costs; bytes and"
  " FLOPs are XLA's count.",
}

_CURVES = (
  "Accuracy, means over seeds with 95 % intervals; level lines are zero-shot"
  " and full fine-tuning."
)

_EQUAL_ID = (
  "OOD accuracy at equal ID score. Left: every method along its learning rates"
  " (WiSE-FT along α), mean over seeds; full fine-tuning is black, with its"
  " 95 % interval, and grey lines mark the scores that are compared at. Right:"
  " the difference from full fine-tuning there, paired by seed, mean over the"
  " scores, with 95 % intervals; filled where it is significant (p < 0.05 after"
  " Benjamini and Hochberg). [3/5]: reaches three of five scores."
)


class Analysis(NamedTuple):
  """What is made of runs before anything is drawn.

  Attributes:
    tasks: All configurations of runs by task.
    chosen: Those at the learning rates that are chosen.
    comparisons: At equal ID score.
  """

  tasks: Mapping[str, list[Entry]]
  chosen: Mapping[str, list[Entry]]
  comparisons: list[Comparison]


def analysed(runs: Sequence[Record], score: Score) -> Analysis:
  """Groups runs, chooses rates, and compares methods.

  Args:
    runs: Of any tasks, perhaps none.
    score: By which ID score methods are compared.
  """
  tasks = by_task(runs) if runs else {}
  picked = {
    task: chosen_rates.relabelled(chosen_rates.choose(entries))
    for task, entries in tasks.items()
  }
  return Analysis(tasks, picked, equal_id.compare(tasks, score))


def of_runs(
  found: Analysis, references: Sequence[str], score: Score
) -> list[Section]:
  """The sections of some runs, with all pictures drawn.

  Args:
    found: Of the runs.
    references: See `experiments.report.write`.
    score: By which ID score methods were compared.
  """
  sections: list[Section] = []
  tasks = found.tasks
  drawn = [each for each in found.comparisons if each.overall]
  first = _at_equal_id(drawn, score)
  if first and len(tasks) > 1:
    sections.append(Section("OOD accuracy at equal ID score", first))
    first = []
  suffixes = _suffixes(list(tasks))
  for task, entries in tasks.items():
    suffix = suffixes[task]
    parts = _of_task(entries, found.chosen[task], references, suffix)
    sections.append(Section(task or "Runs", [*first, *parts]))
  return sections


def slug(task: str) -> str:
  """A task as part of a file's name.

  Example:
    >>> slug("PACS from cartoon, 100 steps")
    'pacs_from_cartoon_100_steps'
  """
  return re.sub(r"[^a-z0-9]+", "_", task.lower()).strip("_")[:80]


def _suffixes(tasks: Sequence[str]) -> dict[str, str]:
  """Of the names of each task's pictures; no two are equal."""
  if len(tasks) == 1:
    return {tasks[0]: ""}
  found: dict[str, str] = {}
  for number, task in enumerate(tasks):
    own = f"_{slug(task)}".rstrip("_")
    # Names in other scripts have no letter of it.
    taken = not own or own in found.values()
    found[task] = f"{own}_{number}" if taken else own
  return found


def picture(name: str, caption: str, drawn: figure.Figure) -> Picture:
  """A figure, rendered."""
  png, pdf = io.BytesIO(), io.BytesIO()
  drawn.savefig(png, format="png")
  # A date in the file would change it with every run.
  drawn.savefig(pdf, format="pdf", metadata={"CreationDate": None})
  return Picture(name, caption, png.getvalue(), pdf.getvalue())


def _at_equal_id(
  comparisons: Sequence[Comparison], score: Score
) -> list[Table | Picture]:
  """One picture of all tasks, and a table each."""
  if not comparisons:
    return []
  drawn = equal_id_figure.draw(comparisons, score)
  return [
    picture("equal_id", _EQUAL_ID, drawn),
    *(equal_id_table(each, score) for each in comparisons),
  ]


def equal_id_table(comparison: Comparison, score: Score) -> Table:
  """Differences from full fine-tuning at every ID score."""
  names = {row.method for row in comparison.rows}
  labels = [each.curve.label for each in comparison.overall]
  rows = []
  for label in [comparison.reference.label, *labels]:
    if label not in names:
      continue
    own = {r.id_score: r for r in comparison.rows if r.method == label}
    cells = []
    for level in comparison.levels:
      row = own.get(level)
      if row is None:
        cells.append("–")
      elif row.paired is None:
        cells.append(f"{100 * row.ood:.1f}")
      else:
        star = "*" if row.p < 0.05 else ""
        cells.append(row.paired.difference.percent() + star)
    rows.append((label, *cells))
  word = equal_id_figure.WORDS[score]
  return Table(
    f"OOD accuracy at equal ID score: {comparison.task}",
    "In percent: full fine-tuning's accuracy, and of the others the difference"
    " from it in points, paired by seed, ± half its 95 % interval, where each"
    " first comes down to the ID score. * p < 0.05 after Benjamini and Hochberg"
    " over the table; – not reached.",
    ("method", *(f"{word} {level:.3f}" for level in comparison.levels)),
    rows,
  )


def _of_task(
  entries: list[Entry],
  picked: list[Entry],
  references: Sequence[str],
  suffix: str,
) -> list[Table | Picture]:
  """Figures and tables at the chosen rates."""
  parts: list[Table | Picture] = []
  tested = [entry for entry in picked if entry.has_targets]
  rates = f"Rates: {RULE}. " if len(picked) < len(entries) else ""
  constant = display_names.constants([entry.config for entry in picked])
  settings = f" {rates}{constant}".rstrip()  # once, at the first of the parts
  if tested:
    drawn = {
      "cost": cost_figure.draw(tested),
      "ood_against_id": figures.ood_against_id(tested),
      "accuracy": accuracy_figure.draw(tested) if len(tested) > 8 else None,
      "progress_bound": bound_figure.draw(tested),
      **knob_figures.draw([e for e in entries if e.has_targets], tested),
      "reliability": figures.reliability(_one_each(tested)),
    }
    for name, each in drawn.items():
      if each is not None:
        said = _CAPTIONS.get(name, _CURVES)
        if not parts:
          said += settings
        parts.append(picture(name + suffix, said, each))
  summary = document.summary(picked)
  if not parts:
    summary = summary._replace(note=summary.note + settings)
  along = rates_table.table(entries)
  parts += [cost_figure.table(picked), summary, *([along] if along else [])]
  if tested:
    parts.append(document.by_domain(tested))
  return [*parts, *_comparisons(picked, references)]


def _one_each(entries: Sequence[Entry]) -> list[Entry]:
  """The first configuration of every method, as many as can be looked at."""
  first = {entry.method: entry for entry in reversed(entries)}
  kept = [entry for entry in entries if first[entry.method] is entry]
  return kept[:_DIAGRAMS]


def _comparisons(
  entries: list[Entry], references: Sequence[str]
) -> list[Table]:
  """OOD and ID against every reference, where a seed is shared."""
  tables = []
  tested = [entry for entry in entries if entry.has_targets]
  for name in references:
    found = [entry for entry in entries if entry.method == name]
    for entry in found[:1]:
      for metric in ("mean_ood", "id"):
        rows = entries if metric == "id" else tested
        if entry not in rows:
          continue
        table = document.comparison(rows, entry, metric)
        if table.rows:
          tables.append(table)
  return tables
