"""Tables of results: a summary by method, and every set on its own.

  python -m experiments.tables RESULTS.jsonl --picture ood.png

Reads result files and nothing else, so that a published table can be printed
again from the published file.
"""

import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import rich
import rich.table
import tyro

from experiments import plots, results


def by_method(records: Sequence[results.Record]) -> rich.table.Table:
  """Accuracy in percent, mean ± sample standard deviation over seeds.

  Args:
    records: Runs, as `experiments.results.read` returns them.

  Returns:
    One row per configuration, in order of first appearance.
  """
  view = rich.table.Table(title="accuracy (%), mean ± std over seeds")
  view.add_column("method")
  for heading in ("ID", "OOD (mean)", "OOD (worst)", "seeds"):
    view.add_column(heading, justify="right")
  columns = ("id", "mean_ood", "worst_ood")
  summaries = [results.summarise(records, metric) for metric in columns]
  for row in zip(*summaries, strict=True):
    view.add_row(
      plots.title(row[0].config["method"]["name"]),
      *(
        f"{100 * s.mean:.1f}" + (f" ± {100 * s.std:.1f}" if s.n > 1 else "")
        for s in row
      ),
      str(row[0].n),
    )
  return view


def by_cost(records: Sequence[results.Record]) -> rich.table.Table:
  """What each method took: medians over its lines.

  Args:
    records: Runs with the statistics of `experiments.runs.Cost`.

  Returns:
    One row per method, in order of first appearance.
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
  groups: dict[str, list[results.Record]] = {}
  for record in records:
    groups.setdefault(record["config"]["method"]["name"], []).append(record)
  view = rich.table.Table(
    title="cost",
    caption="Runs trained and used; thousands of weights changed per step and"
    " over a run; KiB of optimizer state; passes over the validation split;"
    " forward passes per image. Medians over seeds.",
  )
  view.add_column("method")
  for heading in columns:
    view.add_column(heading, justify="right")
  for name, group in groups.items():
    medians = (
      statistics.median(read(line["stats"]) for line in group)
      for read in columns.values()
    )
    view.add_row(
      plots.title(name),
      *(f"{m:.1f}" if m % 1 else f"{m:,.0f}" for m in medians),
    )
  return view


def by_set(records: Sequence[results.Record]) -> rich.table.Table:
  """Accuracy in percent on every evaluation set, mean over seeds.

  Args:
    records: Runs on the same sets, at least one.

  Returns:
    One row per set, one column per method.
  """
  groups: dict[str, list[results.Record]] = {}
  for record in records:
    groups.setdefault(record["config"]["method"]["name"], []).append(record)
  view = rich.table.Table(title="accuracy (%) by set, mean over seeds")
  view.add_column("set")
  for name in groups:
    view.add_column(plots.title(name), justify="right")

  def add(name: str, read: Callable[[dict[str, Any]], float]) -> None:
    means = (
      statistics.fmean(read(run["metrics"]) for run in group)
      for group in groups.values()
    )
    view.add_row(name, *(f"{100 * mean:.1f}" for mean in means))

  add("in distribution", lambda metrics: metrics["id"])
  for shift in records[0]["metrics"]["ood"]:
    add(shift, lambda metrics, shift=shift: metrics["ood"][shift])
  return view


def show(
  file: tyro.conf.Positional[pathlib.Path],
  picture: pathlib.Path | None = None,
) -> None:
  """Prints the tables of a results file.

  Args:
    file: JSON lines, as `experiments.train` and the demo write them.
    picture: Where to draw accuracy out of against in distribution, if at all.
  """
  records = results.read(file)
  rich.print(by_set(records))
  rich.print(by_method(records))
  if all("forward_passes" in record.get("stats", {}) for record in records):
    rich.print(by_cost(records))
  if picture is not None:
    plots.ood_against_id(records, picture)


if __name__ == "__main__":
  tyro.cli(show, description=__doc__)
