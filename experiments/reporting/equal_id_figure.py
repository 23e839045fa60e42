"""The picture of OOD accuracy at equal ID score: curves, and differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import figure, ticker

from experiments import metrics
from experiments.metrics import equal_score
from experiments.reporting import display_names
from experiments.reporting.equal_id import Comparison, MethodCurve, Overall
from experiments.reporting.figures import tidy

Styles = dict[str, tuple[str, str]]
"""Colour and line of curves by their label."""

WORDS = {"brier": "Brier score", "nll": "NLL"}

_ROW, _LEAST = 0.2, 2.8  # inches: of a method on the right; of the whole


def draw(comparisons: Sequence[Comparison], score: str) -> figure.Figure:
  """Curves on the left, differences from full fine-tuning on the right.

  Args:
    comparisons: A row each, at least one.
    score: Which ID score they are by.
  """
  heights = [
    max(_LEAST, 1.3 + _ROW * len(each.overall)) for each in comparisons
  ]
  picture = figure.Figure(
    figsize=(9.6, sum(heights)), dpi=150, layout="constrained"
  )
  rows: Any = picture.subfigures(
    len(comparisons), 1, squeeze=False, height_ratios=heights
  )
  styles = _styles(comparisons)
  for row, comparison in zip(rows[:, 0], comparisons, strict=True):
    if len(comparisons) > 1:
      row.suptitle(comparison.task, fontsize=11)
    _row(row.subplots(1, 2, width_ratios=(1, 1.05)), comparison, score, styles)
  return picture


def _row(axes: Any, comparison: Comparison, score: str, styles: Styles) -> None:
  left, right = axes
  for curve in comparison.others:
    _curve(left, curve, styles.get(curve.label), width=1.4)
  _curve(left, comparison.reference, ("black", "-"), width=2.2)
  for level in comparison.levels:
    left.axvline(level, color="0.85", linewidth=0.8, zorder=0)
  left.set_xscale("log")
  if comparison.levels:  # whatever is much worse in distribution is outside
    worst, *_, best = comparison.levels
    left.set_xlim(worst * worst / best, best * best / worst)
  left.xaxis.set_major_locator(ticker.MaxNLocator(6))
  left.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
  left.xaxis.set_minor_locator(ticker.NullLocator())
  left.tick_params(axis="x", labelsize=8)
  left.set_xlabel(f"ID {WORDS.get(score, score)} (better to the right)")
  left.set_ylabel("OOD accuracy (%)")
  tidy(left)
  _differences(right, comparison.overall, styles, len(comparison.levels))


def _styles(comparisons: Sequence[Comparison]) -> Styles:
  """Colour and line by label, for as many as there are distinct colours.

  First come the methods that have a look of their own, then those that most
  tasks have, then the best.
  """
  tasks: dict[str, int] = {}
  curves: dict[str, MethodCurve] = {}
  for each in comparisons:
    for label in (one.curve.label for one in each.overall):
      tasks[label] = tasks.get(label, 0) + 1
    curves = {one.curve.label: one.curve for one in each.overall} | curves
  ranked = sorted(
    (curves[label] for label in tasks),
    key=lambda curve: (
      curve.method not in display_names.STYLES,
      -tasks[curve.label],
    ),
  )
  colours = (
    "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#8B5A2B",
  )  # fmt: skip
  return {
    curve.label: (colour, "--" if i % 2 else "-")
    for i, (curve, colour) in enumerate(zip(ranked, colours, strict=False))
  }


def _curve(
  view: Any, curve: MethodCurve, style: tuple[str, str] | None, width: float
) -> None:
  """From the first run to the best in ID score, a mean over seeds."""
  own = equal_score.levels(curve.runs, 40)
  at = equal_score.means(own)
  found = equal_score.at_levels(curve.runs, own)
  means = [metrics.interval(list(values.values())) for values in found]
  if not means:
    return
  colour, line = style or ("0.75", "-")
  view.plot(
    at,
    [100 * each.mean for each in means],
    line,
    color=colour,
    linewidth=width if style else 0.8,
    zorder=3 if style else 1,
  )
  if colour == "black" and means[0].n > 1:
    ends = [(100 * each.low, 100 * each.high) for each in means]
    view.fill_between(at, *zip(*ends, strict=True), color="0.9", zorder=0)


def _differences(
  view: Any,
  overall: Sequence[Overall],
  styles: Styles,
  count: int,
) -> None:
  for y, each in enumerate(overall):
    found = each.paired.difference
    colour = styles.get(each.curve.label, ("0.45", ""))[0]
    reach = 100 * (found.high - found.mean) if found.n > 1 else 0.0
    view.errorbar(
      100 * found.mean, y, xerr=0.0 if np.isnan(reach) else reach,
      color=colour, marker="o", ms=5, capsize=3, linestyle="",
      mfc=colour if each.p < 0.05 else "white",
    )  # fmt: skip
  view.axvline(0, color="black", linewidth=1)
  names = [
    each.curve.label
    + ("" if each.reached == count else f" [{each.reached}/{count}]")
    for each in overall
  ]
  view.set_yticks(range(len(overall)), names, fontsize=8)
  for text, each in zip(view.get_yticklabels(), overall, strict=True):
    text.set_color(styles.get(each.curve.label, ("black", ""))[0])
  view.set_ylim(len(overall) - 0.4, -0.6)
  view.set_xlabel("OOD accuracy at equal ID score,\nminus full fine-tuning's")
  tidy(view)
