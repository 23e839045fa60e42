"""OOD accuracy against what a method costs, as ratios to full fine-tuning."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import figure

from experiments.reporting.display_names import FULL
from experiments.reporting.document import Table
from experiments.reporting.entries import Entry
from experiments.reporting.figures import legend, point, styles_of, tidy

COSTS: dict[str, Callable[[dict[str, Any]], float]] = {
  "weights that a step changes": lambda s: s.get("changed_parameters", 0),
  "state (bytes)": lambda s: s.get("optimizer_bytes", 0),
  "gradients to reduce (bytes)": lambda s: s.get("reduced_bytes", 0),
  "work of a step (FLOPs)": lambda s: s.get("step_flops", 0),
  "peak memory of a step (bytes)": lambda s: s.get("step_peak_bytes", 0),
}
"""Each of a run's `stats`; 0 where it was not recorded. No time is among them:
runs of a study are timed on whatever else the machine does."""


def of_entry(entry: Entry) -> dict[str, float]:
  """The costs of a configuration, means over seeds; without what is unknown."""
  found = {}
  for name, read in COSTS.items():
    values = [read(run.get("stats", {})) for run in entry.runs.values()]
    if all(value > 0 for value in values):
      found[name] = float(np.mean(values))
  return found


def of_full(entries: Sequence[Entry]) -> dict[str, float]:
  """Full fine-tuning's costs; none where it is not among the entries."""
  return next((of_entry(e) for e in entries if e.method == FULL), {})


def ratios(entries: Sequence[Entry]) -> dict[str, dict[str, float]]:
  """Costs over full fine-tuning's, by label, where both are recorded."""
  base = of_full(entries)
  return {
    entry.label: {
      name: cost / base[name]
      for name, cost in of_entry(entry).items()
      if name in base
    }
    for entry in entries
  }


def table(entries: Sequence[Entry]) -> Table:
  """The costs as ratios to full fine-tuning; "–" where one is not recorded."""
  found = ratios(entries)
  rows = []
  for entry in entries:
    if of_entry(entry):
      own = found[entry.label]
      cells = (f"{own[n]:.2f}" if n in own else "–" for n in COSTS)
      rows.append((entry.label, *cells))
  return Table(
    "Cost of a step",
    "Ratios to full fine-tuning. Bytes and FLOPs are XLA's count.",
    ("method", *COSTS),
    rows,
  )


def draw(entries: Sequence[Entry]) -> figure.Figure | None:
  """A panel for each cost; None if no run that took steps recorded any.

  Args:
    entries: One of each method. Ratios are to full fine-tuning, where it is
      among them and recorded the same.
  """
  costs = {entry.label: of_entry(entry) for entry in entries}
  trained = [entry for entry in entries if costs[entry.label]]
  names = [
    name for name in COSTS if any(name in costs[e.label] for e in trained)
  ]
  if not names:
    return None
  base = of_full(trained)
  columns = min(3, len(names))
  rows = -(-len(names) // columns)
  picture = figure.Figure(
    figsize=(max(6.4, 3.2 * columns), 3.1 * rows + 0.2),
    dpi=150,
    layout="constrained",
  )
  axes = picture.subplots(rows, columns, squeeze=False, sharey=True)
  styles = styles_of(entries)
  for view in axes.flat[len(names) :]:
    view.set_axis_off()
  for view, name in zip(axes.flat, names, strict=False):
    whole = base.get(name)
    for entry in trained:
      if name in costs[entry.label]:
        x = costs[entry.label][name] / (whole or 1)
        y = 100 * entry.interval("mean_ood").mean
        point(view, x, y, entry, styles)
    view.set_xlabel(f"{name},\n× full fine-tuning's" if whole else name)
    tidy(view)
    view.margins(0.15)
    view.set_xlim(left=0)
  for view in axes[:, 0]:
    view.set_ylabel("mean OOD accuracy (%)")
  legend(picture)
  return picture
