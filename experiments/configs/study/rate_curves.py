"""GMixout's learning rate beside its other settings: a picture and a table.

python -m experiments.configs.study.rate_curves \
    experiments/results/study_rule_cpu.jsonl
"""

import collections
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich
import rich.table
import tyro
from matplotlib import figure

from experiments import command_line
from experiments.configs.study.plan import VARIANTS, changed
from experiments.data.damage import parsing
from experiments.reporting import records

PANELS = {
  "steps of an episode, k": ("k 1", "k 3", "as it is", "k 50"),
  "share held at the anchor, p": ("p 0.5", "as it is", "p 0.97"),
  "anchor decay, λ": ("λ 0", "as it is", "λ 0.8"),
  "moments and k": (
    *("as it is", "moments reset", "k 50", "moments reset, k 50"),
  ),
  "sampler": ("as it is", "uniform", "bernoulli", "neuron"),
}
"""Which variants are drawn together."""


def by_variant(
  results: Sequence[records.Record],
) -> dict[str, list[records.Record]]:
  """The lines of each variant by rising rate.

  Raises:
    ValueError: If a line is none of GMixout.
  """
  found = collections.defaultdict(list)
  for number, record in enumerate(results, start=1):
    method = record["config"]["method"]
    if method.get("name") != "gmixout":
      raise ValueError(
        f"line {number} is of {method.get('name')!r}: the rule is GMixout's."
      )
    found[changed(method)].append(record)
  rate = lambda record: record["config"]["method"]["learning_rate"]
  return {
    name: sorted(found[name], key=rate) for name in VARIANTS if name in found
  }


def best_rate(results: Sequence[records.Record]) -> float:
  """Where the parabola through the best point and its neighbours is lowest.

  Of the logarithm of the Brier score, on the images that ID accuracy is of,
  over the logarithm of the rate. A best point at an end of the grid is returned
  as it is.
  """
  x = np.log([r["config"]["method"]["learning_rate"] for r in results])
  y = np.log([r["metrics"]["details"]["id"]["brier"] for r in results])
  at = int(np.argmin(y))
  if at in (0, len(x) - 1):
    return math.exp(x[at])
  a, b, _ = np.polyfit(x[at - 1 : at + 2], y[at - 1 : at + 2], 2)
  return math.exp(-b / (2 * a))


def table(found: Mapping[str, Sequence[records.Record]]) -> rich.table.Table:
  """Accuracy in and out of distribution by rate, and the best rate."""
  rates = sorted(
    {
      record["config"]["method"]["learning_rate"]
      for results in found.values()
      for record in results
    }
  )
  view = rich.table.Table(title="ID / mean OOD accuracy (%) by learning rate")
  view.add_column("variant")
  for rate in rates:
    view.add_column(f"{rate:g}", justify="right")
  view.add_column("best", justify="right")
  for name, results in found.items():
    cells: dict[float, str] = {}
    for record in results:
      rate, m = record["config"]["method"]["learning_rate"], record["metrics"]
      cells[rate] = f"{100 * m['id']:.1f} / {100 * m['mean_ood']:.1f}"
    view.add_row(
      name, *(cells.get(r, "") for r in rates), f"{best_rate(results):.1e}"
    )
  return view


def draw(found: Mapping[str, Sequence[records.Record]]) -> figure.Figure:
  """ID above OOD accuracy over the rate, one column per group of variants."""
  panels = {
    title: [name for name in names if name in found]
    for title, names in PANELS.items()
  }
  picture = figure.Figure(
    figsize=(3.0 * len(panels), 5.0), dpi=150, layout="constrained"
  )
  axes: Any = picture.subplots(2, len(panels), sharex=True, sharey="row")
  colours = ("#009E73", "#0072B2", "#D55E00", "#CC79A7")
  for column, (title, names) in enumerate(panels.items()):
    for name, colour, marker in zip(names, colours, "Dosv", strict=False):
      results = found[name]
      rates = [r["config"]["method"]["learning_rate"] for r in results]
      for row, metric in enumerate(("id", "mean_ood")):
        axes[row, column].plot(
          rates,
          [100 * record["metrics"][metric] for record in results],
          color=colour,
          marker=marker,
          label=name,
        )
    axes[0, column].set_title(title, fontsize="medium")
    axes[0, column].legend(fontsize="x-small")
    axes[1, column].set_xlabel("learning rate")
    axes[1, column].set_xscale("log")
  axes[0, 0].set_ylabel("ID accuracy (%)")
  axes[1, 0].set_ylabel("mean OOD accuracy (%)")
  return picture


def show(
  file: tyro.conf.Positional[pathlib.Path],
  picture: pathlib.Path | None = None,
) -> None:
  """Prints the table, and draws the picture.

  Args:
    file: Lines of the part "rule" of the study.
    picture: Where to draw, if at all.
  """
  with parsing(file):  # which lines of other parts do not fit
    found = by_variant(records.read(file))
    shown = table(found)
    drawn = None if picture is None else draw(found)
  rich.print(shown)
  if picture is not None and drawn is not None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(picture)


if __name__ == "__main__":
  tyro.cli(command_line.checked(show), description=__doc__)
