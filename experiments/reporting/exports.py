"""The numbers of a report for other programs: CSV, and LaTeX with booktabs."""

import csv
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.reporting import cost_figure
from experiments.reporting.entries import Entry, compare

METRICS = {"id": "ID", "mean_ood": "OOD mean", "worst_ood": "OOD worst"}

_LEVEL = 0.05


def to_csv(
  tasks: Mapping[str, Sequence[Entry]], chosen: Mapping[str, Sequence[Entry]]
) -> str:
  """A row for each configuration: means with 95 % intervals, and costs.

  Args:
    tasks: All configurations by task.
    chosen: Those whose learning rate is chosen; "chosen" says it in a row.
  """
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  ends = [f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")]
  writer.writerow(
    [
      *("task", "method", "chosen", "seeds", *ends),
      *("progress_bound", *cost_figure.COSTS),
    ]
  )
  for task, entries in tasks.items():
    for entry in entries:
      cells: list[float] = []
      for metric in METRICS:
        cells += _interval(entry, metric)
      cells.append(_mean(entry))
      costs = cost_figure.of_entry(entry)
      cells += [costs.get(name, math.nan) for name in cost_figure.COSTS]
      taken = "yes" if entry in chosen[task] else "no"
      writer.writerow(
        [task, entry.label, taken, len(entry.runs), *map(_shown, cells)]
      )
  return text.getvalue()


def _interval(entry: Entry, metric: str) -> list[float]:
  if any(metric not in run["metrics"] for run in entry.runs.values()):
    return [math.nan] * 3
  return list(entry.interval(metric)[:3])


def _mean(entry: Entry) -> float:
  found = [run.get("progress_bound") for run in entry.runs.values()]
  known = [value for value in found if value is not None]
  return float(np.mean(known)) if known else math.nan


def _shown(value: float) -> str:
  return "" if math.isnan(value) else f"{value:.6g}"


def to_latex(chosen: Mapping[str, Sequence[Entry]]) -> str:
  """A table for each task, for the package booktabs: mean ± half its interval.

  In bold is the best mean of a column, with all that are not significantly
  different from it (paired t-test, Benjamini and Hochberg, 5 %). What cannot be
  tested, for want of seeds, is not in bold.
  """
  parts = ["% \\usepackage{booktabs}"]
  for task, entries in chosen.items():
    bold = {metric: _best(entries, metric) for metric in METRICS}
    parts += [
      "\\begin{table}",
      f"\\caption{{{escaped(task)}: accuracy in percent, mean over seeds $\\pm$"
      " half its 95\\,\\% interval. Bold: the best, and what is not"
      " significantly different from it.}",
      "\\begin{tabular}{lrrr}",
      "\\toprule",
      " & ".join(["method", *METRICS.values()]) + r" \\",
      "\\midrule",
    ]
    for entry in entries:
      cells = [escaped(entry.label)]
      for metric in METRICS:
        text = entry.percent(metric).replace("±", r"$\pm$").replace("–", "--")
        strong = entry.label in bold[metric]
        cells.append(f"\\textbf{{{text}}}" if strong else text)
      parts.append(" & ".join(cells) + r" \\")
    parts += ["\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
  return "\n".join(parts)


def _best(entries: Sequence[Entry], metric: str) -> set[str]:
  """The labels of the best, and of what does not differ significantly."""
  measured = [
    entry
    for entry in entries
    if all(metric in run["metrics"] for run in entry.runs.values())
  ]
  if not measured:
    return set()
  best = max(measured, key=lambda entry: entry.interval(metric).mean)
  alike = {
    found.label
    for found in compare(measured, best, metric)
    if found.p_adjusted >= _LEVEL
  }
  return {best.label} | alike


_SYMBOLS = {
  "λ": r"$\lambda$", "α": r"$\alpha$", "β": r"$\beta$", "±": r"$\pm$",
  "²": "$^2$", "–": "--", "−": "$-$", "\\": r"\textbackslash{}",
  "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
  **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def escaped(text: str) -> str:
  r"""Text in which LaTeX finds no commands.

  Example:
    >>> escaped("50% of λ_1")
    '50\\% of $\\lambda$\\_1'
  """
  return "".join(_SYMBOLS.get(sign, sign) for sign in " ".join(text.split()))
