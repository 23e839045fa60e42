"""Accuracy over one setting of methods: λ, k, p, the rate, the rank or α."""

from collections.abc import Sequence
from typing import Any

from matplotlib import figure

from experiments.reporting import display_names
from experiments.reporting.entries import Entry
from experiments.reporting.figures import (
  OTHERS,
  PANELS,
  cut_to_percent,
  legend,
  reach,
  styles_of,
  tidy,
)
from experiments.reporting.knobs import CHOSEN, KNOBS, RATE, KnobCurve, curves

LOGARITHMIC = ("resample_every", RATE, "rank")


def draw(
  entries: Sequence[Entry], chosen: Sequence[Entry]
) -> dict[str, figure.Figure]:
  """A figure for each setting that runs vary, by "curve_" and its name.

  Args:
    entries: All, for curves over the learning rate and α.
    chosen: At one of these each, for curves over any other setting, and for the
      lines of zero-shot and full fine-tuning to compare with.
  """
  found = {}
  for knob in KNOBS:
    drawn = curves(entries if knob in CHOSEN else chosen, knob)
    if drawn:
      found[f"curve_{knob}"] = _figure(knob, drawn, chosen)
  return found


def _figure(
  knob: str, drawn: Sequence[KnobCurve], chosen: Sequence[Entry]
) -> figure.Figure:
  picture = figure.Figure(figsize=(9.6, 3.8), dpi=150, layout="constrained")
  axes = picture.subplots(1, 2)
  styles = styles_of([curve.entries[0] for curve in drawn])
  for view, (metric, words) in zip(axes, PANELS, strict=True):
    for curve in drawn:
      colour, marker = style = styles[curve.entries[0].label]
      other = style == OTHERS
      view.errorbar(
        curve.values,
        [100 * entry.interval(metric).mean for entry in curve.entries],
        yerr=None if other else [reach(e, metric) for e in curve.entries],
        color=colour,
        marker="" if other else marker,
        ms=4,
        lw=0.8 if other else 1.2,
        capsize=2,
        zorder=1 if other else 2,
        label="others" if other else curve.label,
      )
    _references(view, metric, chosen)
    if knob in LOGARITHMIC:
      view.set_xscale("log")
    view.set_xlabel(display_names.axis(knob))
    view.set_ylabel(words)
    tidy(view)
    cut_to_percent(view)
  legend(picture)
  return picture


def _references(view: Any, metric: str, chosen: Sequence[Entry]) -> None:
  """Zero-shot and full fine-tuning as level lines."""
  for method, style in (
    (display_names.ZERO_SHOT, ":"),
    (display_names.FULL, "--"),
  ):
    for entry in [e for e in chosen if e.method == method][:1]:
      view.axhline(
        100 * entry.interval(metric).mean,
        color="black",
        linewidth=0.9,
        linestyle=style,
        zorder=0,
        label=display_names.title(method),
      )
