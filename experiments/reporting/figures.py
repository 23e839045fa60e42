"""The report's pictures. Every one is drawn from entries alone."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import figure
from matplotlib.container import ErrorbarContainer

from experiments import metrics
from experiments.reporting import display_names
from experiments.reporting.entries import Entry, pareto

# Okabe and Ito's colours, distinct in every kind of colour vision.
_COLOURS = (
  "#009E73", "#D55E00", "#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#999999",
)  # fmt: skip
_MARKERS = "Dso^vP<>hX"
DISTINCT, OTHERS = 12, ("0.7", "o")
"""How many styles a picture has, and the one style of all further entries."""

_LETTER = 0.07  # inches, of a legend's text


PANELS = (("id", "ID accuracy (%)"), ("mean_ood", "mean OOD accuracy (%)"))
"""The metrics of two panels side by side, and what their axes are called."""

# ID and OOD, wherever both are in one picture.
KINDS = (
  ("id", "#0072B2", "o", "--", "in distribution"),
  ("ood", "#D55E00", "s", "-", "out of distribution"),
)


def styles_of(entries: Sequence[Entry]) -> dict[str, tuple[str, str]]:
  """Colour and marker by label; a method keeps those it has elsewhere.

  The first `DISTINCT` differ, those after them are all `OTHERS`. Methods with a
  style of their own come first, then the order of the entries counts.
  """
  styles: dict[str, tuple[str, str]] = {}
  own = (*display_names.STYLES, display_names.ZERO_SHOT)
  ranked = sorted(entries, key=lambda entry: entry.method not in own)
  styles = {entry.label: OTHERS for entry in ranked[DISTINCT:]}
  for entry in ranked[:DISTINCT]:
    known = display_names.STYLES.get(entry.method)
    if entry.method == display_names.ZERO_SHOT:
      styles[entry.label] = ("black", "*")
    elif known and known not in styles.values():
      styles[entry.label] = known
  spare = [(c, m) for m in _MARKERS for c in _COLOURS]
  for entry in ranked:  # those that have no style of their own, or share one
    if entry.label not in styles:
      free = [style for style in spare if style not in styles.values()] or spare
      taken = {colour for colour, _ in styles.values()}
      fresh = [style for style in free if style[0] not in taken]
      styles[entry.label] = (fresh or free)[0]
  return styles


def _new() -> tuple[figure.Figure, Any]:
  picture = figure.Figure(figsize=(7.2, 5.0), dpi=150, layout="constrained")
  view = picture.add_subplot()
  tidy(view)
  return picture, view


def tidy(view: Any) -> None:
  """Takes from axes what says nothing."""
  view.grid(alpha=0.3)
  view.spines[["top", "right"]].set_visible(False)


def cut_to_percent(view: Any) -> None:
  """Ends the y axis where accuracies do, whatever wide intervals reach to."""
  low, high = view.get_ylim()
  view.set_ylim(max(low, -2.0), min(high, 102.0))


def legend(picture: figure.Figure) -> None:
  """Below the axes, in as many columns as fit; the picture grows by its rows.

  Inside, it would hide points as soon as there are many. What several axes have
  in common is named once.
  """
  named: dict[str, Any] = {}
  for view in picture.axes:
    for handle, name in zip(*view.get_legend_handles_labels(), strict=True):
      named.setdefault(name, handle)
  names, handles = list(named), list(named.values())
  # Of points with bars the marker alone: bars would run into each other.
  handles = [h[0] if isinstance(h, ErrorbarContainer) else h for h in handles]
  width, height = picture.get_size_inches()
  names = [textwrap.fill(name, int((width - 0.6) / _LETTER)) for name in names]
  longest = max(len(line) for name in names for line in name.split("\n"))
  columns = int(width / (_LETTER * longest + 0.6))
  columns = max(1, min(columns, len(names)))
  lines = sum(name.count("\n") for name in names)
  rows = -(-(len(names) + lines) // columns)
  picture.set_size_inches(width, height + 0.19 * rows)
  picture.legend(
    handles,
    names,
    loc="outside lower center",
    ncols=columns,
    frameon=False,
    fontsize=8,
  )


def reach(entry: Entry, metric: str) -> float:
  """Half the 95 % interval in points; 0, for no bar, of a single run."""
  found = entry.interval(metric)
  return 100 * (found.high - found.mean) if found.n > 1 else 0.0


def point(
  view: Any,
  x: float,
  y: float,
  entry: Entry,
  styles: dict[str, tuple[str, str]],
  *,
  xerr: float | None = None,
) -> None:
  """One entry, with a bar for its interval out of distribution."""
  colour, marker = styles[entry.label]
  other = styles[entry.label] == OTHERS
  view.errorbar(
    x,
    y,
    xerr=None if other else xerr,
    yerr=None if other else reach(entry, "mean_ood"),
    color=colour,
    marker=marker,
    ms=5 if other else 8,
    mec="white",
    capsize=3,
    linestyle="",
    zorder=1 if other else 2,
    label="others" if other else entry.label,
  )


def ood_against_id(entries: Sequence[Entry]) -> figure.Figure:
  """Means with 95 % intervals over seeds, zero-shot, and the Pareto front."""
  picture, view = _new()
  points = [
    (100 * e.interval("id").mean, 100 * e.interval("mean_ood").mean)
    for e in entries
  ]
  styles = styles_of(entries)
  for entry, (x, y) in zip(entries, points, strict=True):
    if entry.method == display_names.ZERO_SHOT:
      view.axhline(y, color="black", linewidth=0.8, linestyle=":")
      view.plot(x, y, "*", ms=17, color="black", label=entry.label)
      continue
    point(view, x, y, entry, styles, xerr=reach(entry, "id"))
  front = [points[i] for i in pareto(points)]
  if len(front) > 1:
    view.plot(
      *zip(*front, strict=True),
      color="0.5",
      linewidth=1,
      linestyle="--",
      zorder=0,
      label="Pareto front",
    )
  view.set_xlabel("in-distribution accuracy (%)")
  view.set_ylabel("mean out-of-distribution accuracy (%)")
  view.margins(0.12)
  legend(picture)
  return picture


def reliability(entries: Sequence[Entry]) -> figure.Figure | None:
  """Accuracy against confidence, ID and OOD, all seeds and domains together.

  A panel per entry, as the curves of several lie on each other. A marker's area
  is the share of images in its bin, and a bin of fewer than ten is not drawn:
  its accuracy is hardly known. The ECE is of all bins.

  Returns:
    None if no run recorded its bins.
  """
  drawn = [e for e in entries if all(_has_bins(r) for r in e.runs.values())]
  if not drawn:
    return None
  columns = min(4, len(drawn))
  rows = -(-len(drawn) // columns)
  picture = figure.Figure(
    figsize=(2.7 * columns + 0.4, 2.8 * rows + 0.3),
    dpi=150,
    layout="constrained",
  )
  axes = picture.subplots(
    rows, columns, squeeze=False, sharex=True, sharey=True
  )
  for view in axes.flat[len(drawn) :]:
    view.set_axis_off()
  for view, entry in zip(axes.flat, drawn, strict=False):
    tidy(view)
    view.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=":")
    errors = []
    for kind, colour, marker, style, label in KINDS:
      bins = _pooled(entry, kind)
      enough = bins.count >= 10
      x, y = bins.confidence[enough], bins.accuracy[enough]
      view.plot(x, y, style, color=colour, lw=1)
      view.scatter(
        x,
        y,
        s=6 + 120 * bins.count[enough] / bins.count.sum(),
        color=colour,
        marker=marker,
        label=label,
      )
      errors.append(f"{kind.upper()} {100 * bins.ece:.1f} %")
    # The wrapped title is at most as wide as the panel.
    heading = textwrap.fill(entry.label, 36)
    view.set_title(f"{heading}\nECE: {', '.join(errors)}", fontsize=8)
  for view in axes.flat[max(0, len(drawn) - columns) : len(drawn)]:
    view.set_xlabel("confidence")
    view.tick_params(labelbottom=True)  # also above a place that is empty
  for view in axes[:, 0]:
    view.set_ylabel("accuracy")
  legend(picture)
  return picture


def _has_bins(run: dict[str, Any]) -> bool:
  return "reliability" in run["metrics"].get("details", {}).get("id", {})


def _pooled(entry: Entry, kind: str) -> metrics.Reliability:
  """Bins with images, summed over seeds and sets."""
  parts = [
    found["reliability"]
    for run in entry.runs.values()
    for name, found in run["metrics"]["details"].items()
    if name.split("/")[0] == kind
  ]
  counts = np.array([part["count"] for part in parts])
  total = counts.sum(axis=0)
  some = total > 0

  def pooled(what: str) -> np.ndarray:
    values = np.array([part[what] for part in parts])
    return (counts * values).sum(axis=0)[some] / total[some]

  return metrics.Reliability(
    total[some], pooled("accuracy"), pooled("confidence")
  )
