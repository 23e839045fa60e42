"""Tables for a terminal: a summary by method, and every set on its own."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import rich.table
from rich.markup import escape

from experiments.reporting import chosen_rates, records
from experiments.reporting.entries import Entry, group
from experiments.reporting.entries import by_task as entries_of


def by_task(
  lines: Sequence[records.Record], *, choose: bool = False
) -> Iterator[rich.table.Table]:
  """Tables of every task on its own, as others do not compare.

  Args:
    lines: Of runs, perhaps none.
    choose: Whether to show one learning rate a method: see
      `chosen_rates.choose`.
  """
  for task, entries in (entries_of(lines) if lines else {}).items():
    shown = chosen_rates.choose(entries) if choose else entries
    own = [line for entry in shown for line in entry.runs.values()]
    kinds = [by_set, by_method]
    if any("headline" in line["metrics"] for line in own):
      kinds = [by_headline]
    if all("forward_passes" in line.get("stats", {}) for line in own):
      kinds.append(by_cost)  # the first lines did not tell all of it
    for table in kinds:
      view = table(own)
      view.title = f"{escape(task)}: {view.title}" if task else view.title
      yield view


def by_method(results: Sequence[records.Record]) -> rich.table.Table:
  """Accuracy in percent, mean over seeds ± half its 95 % interval.

  Args:
    results: Runs, as `experiments.reporting.records.read` returns them.

  Returns:
    One row per configuration, in order of first appearance.
  """
  view = rich.table.Table(
    title="accuracy (%), mean over seeds ± half its 95 % interval"
  )
  view.add_column("method")
  for heading in ("ID", "OOD (mean)", "OOD (worst)", "seeds"):
    view.add_column(escape(heading), justify="right")
  for entry in group(results):
    cells = (
      entry.percent(metric) for metric in ("id", "mean_ood", "worst_ood")
    )
    view.add_row(escape(entry.label), *cells, str(len(entry.runs)))
  return view


def by_cost(results: Sequence[records.Record]) -> rich.table.Table:
  """What each method took: medians over its lines.

  Args:
    results: Runs with the statistics of `experiments.training.runs.Cost`.

  Returns:
    One row per configuration, in order of first appearance.
  """
  columns: dict[str, Callable[[dict[str, Any]], float]] = {
    "runs": lambda stats: stats["runs"],
    "used": lambda stats: stats["ingredients"],
    "step": lambda stats: stats["changed_parameters"] / 1000,
    "run": lambda stats: stats["trained_parameters"] / 1000,
    "KiB": lambda stats: stats["optimizer_bytes"] / 2**10,
    "steps/s": lambda stats: stats["steps_per_second"],
    "val.": lambda stats: stats["evaluations"],
    "fwd": lambda stats: stats["forward_passes"],
  }
  view = rich.table.Table(
    title="cost",
    caption="Runs trained and used; thousands of weights changed per step and"
    " over a run; KiB of optimizer state; passes over the validation split;"
    " forward passes per image. Medians over seeds.",
  )
  view.add_column("method")
  for heading in columns:
    view.add_column(escape(heading), justify="right")
  for entry in group(results):
    medians = (
      statistics.median(read(line["stats"]) for line in entry.runs.values())
      for read in columns.values()
    )
    view.add_row(
      escape(entry.label),
      *(f"{m:.1f}" if m % 1 else f"{m:,.0f}" for m in medians),
    )
  return view


def by_headline(results: Sequence[records.Record]) -> rich.table.Table:
  """The numbers that an experiment is about, in percent, mean over seeds.

  Args:
    results: Runs whose metrics have a headline.

  Returns:
    One row per configuration, in order of first appearance.
  """
  entries = group(results)
  view = rich.table.Table(title="in percent, mean over seeds")
  view.add_column("method")
  found = [_headlines(entry) for entry in entries]
  columns = list(dict.fromkeys(name for numbers in found for name in numbers))
  for heading in [*columns, "seeds"]:
    view.add_column(escape(heading), justify="right")
  for entry, numbers in zip(entries, found, strict=True):
    cells = (
      f"{100 * statistics.fmean(numbers[name]):.1f}" if name in numbers else "–"
      for name in columns
    )
    view.add_row(escape(entry.label), *cells, str(len(entry.runs)))
  return view


def _headlines(entry: Entry) -> dict[str, list[float]]:
  """Of all runs, by name."""
  found: dict[str, list[float]] = {}
  for run in entry.runs.values():
    for name, value in run["metrics"].get("headline", {}).items():
      found.setdefault(name, []).append(value)
  return found


def by_set(results: Sequence[records.Record]) -> rich.table.Table:
  """Accuracy in percent on every evaluation set, mean over seeds.

  Args:
    results: Runs, at least one.

  Returns:
    One row per set, one column per configuration; "–" where it was not
    evaluated on the set.
  """
  entries = group(results)
  view = rich.table.Table(title="accuracy (%) by set, mean over seeds")
  view.add_column("set")
  for entry in entries:
    view.add_column(escape(entry.label), justify="right")

  def cell(entry: Entry, read: Callable[[dict[str, Any]], float | None]) -> str:
    found = [read(run["metrics"]) for run in entry.runs.values()]
    known = [value for value in found if value is not None]
    return f"{100 * statistics.fmean(known):.1f}" if known else "–"

  def add(name: str, read: Callable[[dict[str, Any]], float | None]) -> None:
    view.add_row(escape(name), *(cell(entry, read) for entry in entries))

  add("in distribution", lambda metrics: metrics["id"])
  shifts = dict.fromkeys(s for r in results for s in r["metrics"]["ood"])
  for shift in shifts:
    add(shift, lambda metrics, shift=shift: metrics["ood"].get(shift))
  return view
