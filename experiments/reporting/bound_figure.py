"""How far GMixout came, against the bound on how far its anchor can come."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure

from experiments import metrics
from experiments.reporting import display_names
from experiments.reporting.entries import Entry
from experiments.reporting.figures import legend, tidy
from experiments.reporting.records import Record

METHOD = "gmixout"

_STARTS = (display_names.ZERO_SHOT, "linear_probe")

_STYLES = {
  True: ("#009E73", "o", "with rescaling"),
  False: ("#D55E00", "s", "without rescaling"),
}


def shares(entry: Entry, full: Entry, start: Entry) -> metrics.Interval | None:
  """Of full fine-tuning's gain in ID accuracy, what a configuration has.

  Args:
    entry: Of GMixout.
    full: Of full fine-tuning.
    start: Of what both begin from; its mean is taken, as it has no seed that
      matters.

  Returns:
    The interval over the seeds of both; None where full fine-tuning gains
    nothing, or no seed is in both.
  """
  before = start.interval("id").mean
  ours, theirs = entry.values("id"), full.values("id")
  both = sorted(ours.keys() & theirs.keys())
  if not both or min(theirs[seed] for seed in both) <= before:
    return None
  return metrics.interval(
    [(ours[seed] - before) / (theirs[seed] - before) for seed in both]
  )


def bound_of(entry: Entry) -> float | None:
  """The progress bound of its runs; None where lines do not tell."""
  found: list[Record] = list(entry.runs.values())
  bounds = {run.get("progress_bound") for run in found}
  return bounds.pop() if len(bounds) == 1 else None


def draw(entries: Sequence[Entry]) -> figure.Figure | None:
  """Shares of full fine-tuning's gain over the bound, with 95 % intervals.

  Args:
    entries: Of one task, a learning rate each.

  Returns:
    None where there are no two bounds to compare, no full fine-tuning, or
    nothing that tells where runs began.
  """
  full = [entry for entry in entries if entry.method == display_names.FULL]
  starts = [e for name in _STARTS for e in entries if e.method == name]
  ours = [
    (entry, bound)
    for entry in entries
    if entry.method == METHOD and (bound := bound_of(entry)) is not None
  ]
  if not full or not starts or len({bound for _, bound in ours}) < 2:
    return None
  picture = figure.Figure(figsize=(6.4, 4.6), dpi=150, layout="constrained")
  view = picture.add_subplot()
  view.plot([0, 1], [0, 1], color="black", lw=0.9, ls="--", label="the bound")
  for entry, bound in ours:
    share = shares(entry, full[0], starts[0])
    if share is None:
      continue
    rescale = entry.config["method"].get("rescale", True)
    colour, marker, words = _STYLES[bool(rescale)]
    reach = share.high - share.mean if share.n > 1 else 0.0
    view.errorbar(
      bound, share.mean, yerr=0.0 if np.isnan(reach) else reach,
      color=colour, marker=marker, ms=5, capsize=2, linestyle="", label=words,
    )  # fmt: skip
  view.set_xlabel("progress bound of the run")
  view.set_ylabel("share of full fine-tuning's gain in ID accuracy")
  tidy(view)
  legend(picture)
  return picture
