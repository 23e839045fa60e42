"""ID and OOD accuracy of many methods, a row each."""

from collections.abc import Sequence

from matplotlib import figure

from experiments.reporting import display_names
from experiments.reporting.entries import Entry
from experiments.reporting.figures import PANELS, reach, styles_of, tidy

_ROW = 0.19  # inches


def draw(entries: Sequence[Entry]) -> figure.Figure:
  """Means with 95 % intervals, the best OOD first; the line is zero-shot.

  Args:
    entries: One of each method, at least one.
  """
  ordered = sorted(entries, key=lambda entry: entry.interval("mean_ood").mean)
  picture = figure.Figure(
    figsize=(9.6, 1.1 + _ROW * len(ordered)), dpi=150, layout="constrained"
  )
  axes = picture.subplots(1, 2, sharey=True)
  styles = styles_of(entries)
  zero_shot = [e for e in entries if e.method == display_names.ZERO_SHOT]
  for view, (metric, words) in zip(axes, PANELS, strict=True):
    for y, entry in enumerate(ordered):
      colour, marker = styles[entry.label]
      view.errorbar(
        100 * entry.interval(metric).mean, y, xerr=reach(entry, metric),
        color=colour, marker=marker, ms=5, capsize=2, linestyle="",
      )  # fmt: skip
    for entry in zero_shot[:1]:
      view.axvline(
        100 * entry.interval(metric).mean, color="black", lw=0.8, ls=":"
      )
    view.set_xlabel(words)
    tidy(view)
  axes[0].set_yticks(
    range(len(ordered)), [e.label for e in ordered], fontsize=8
  )
  axes[0].set_ylim(-0.6, len(ordered) - 0.4)
  return picture
