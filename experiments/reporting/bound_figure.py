"""GMixout's accuracy against the bound on how far its anchor can come."""

from collections.abc import Sequence

from matplotlib import figure

from experiments.reporting import display_names
from experiments.reporting.entries import Entry
from experiments.reporting.figures import PANELS, legend, reach, tidy
from experiments.reporting.records import Record

METHOD = "gmixout"

_STYLES = {
  True: ("#009E73", "o", "with rescaling"),
  False: ("#D55E00", "s", "without rescaling"),
}

_LINES = (
  (display_names.ZERO_SHOT, ":", "zero-shot"),
  (display_names.FULL, "--", "full fine-tuning"),
)


def bound_of(entry: Entry) -> float | None:
  """The progress bound of its runs; None where lines do not tell."""
  found: list[Record] = list(entry.runs.values())
  bounds = {run.get("progress_bound") for run in found}
  return bounds.pop() if len(bounds) == 1 else None


def draw(entries: Sequence[Entry]) -> figure.Figure | None:
  """ID and OOD accuracy over the bound, with 95 % intervals.

  Args:
    entries: Of one task, a learning rate each.

  Returns:
    None where there are no two bounds to compare.
  """
  ours = [
    (entry, bound)
    for entry in entries
    if entry.method == METHOD and (bound := bound_of(entry)) is not None
  ]
  if len({bound for _, bound in ours}) < 2:
    return None
  picture = figure.Figure(figsize=(9.6, 4.0), dpi=150, layout="constrained")
  for view, (metric, words) in zip(picture.subplots(1, 2), PANELS, strict=True):
    for name, style, label in _LINES:
      for entry in [each for each in entries if each.method == name][:1]:
        y = 100 * entry.interval(metric).mean
        view.axhline(y, color="black", lw=0.9, ls=style, label=label)
    for entry, bound in ours:
      rescale = entry.config["method"].get("rescale", True)
      colour, marker, label = _STYLES[bool(rescale)]
      view.errorbar(
        bound, 100 * entry.interval(metric).mean, yerr=reach(entry, metric),
        color=colour, marker=marker, ms=5, capsize=2, linestyle="", label=label,
      )  # fmt: skip
    view.set_xlabel("progress bound of the run")
    view.set_ylabel(words)
    tidy(view)
  legend(picture)
  return picture
