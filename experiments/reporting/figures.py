"""The report's pictures. Every one is drawn from entries alone."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import figure
from matplotlib.container import ErrorbarContainer

from experiments import metrics
from experiments.reporting import display_names
from experiments.reporting.entries import Entry, curves, pareto

# Okabe and Ito's colours, told apart by every kind of colour vision.
_COLOURS = (
  "#009E73", "#D55E00", "#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#999999",
)  # fmt: skip
_MARKERS = "Dso^vP<>hX"
_LETTER = 0.07  # inches, of a legend's text


# ID and OOD, wherever both are in one picture.
_KINDS = (
  ("id", "#0072B2", "o", "--", "in distribution"),
  ("ood", "#D55E00", "s", "-", "out of distribution"),
)


def _styles(entries: Sequence[Entry]) -> dict[str, tuple[str, str]]:
  """Colour and marker by label; a method keeps those it has elsewhere."""
  styles = {}
  for entry in entries:
    known = display_names.LOOKS.get(entry.method)
    if entry.method == display_names.ZERO_SHOT:
      styles[entry.label] = ("black", "*")
    elif known and known not in styles.values():
      styles[entry.label] = known
  spare = [(c, m) for m in _MARKERS for c in _COLOURS]
  for entry in entries:  # those that have no look of their own, or share one
    if entry.label not in styles:
      free = [style for style in spare if style not in styles.values()] or spare
      taken = {colour for colour, _ in styles.values()}
      fresh = [style for style in free if style[0] not in taken]
      styles[entry.label] = (fresh or free)[0]
  return styles


def _new(width: float = 7.2, height: float = 5.0) -> tuple[figure.Figure, Any]:
  picture = figure.Figure(
    figsize=(width, height), dpi=150, layout="constrained"
  )
  view = picture.add_subplot()
  _tidy(view)
  return picture, view


def _tidy(view: Any) -> None:
  view.grid(alpha=0.3)
  view.spines[["top", "right"]].set_visible(False)


def _legend(picture: figure.Figure, view: Any) -> None:
  """Below the axes, in as many columns as fit; the picture grows by its rows.

  Inside, it would hide points as soon as there are many.
  """
  handles, names = view.get_legend_handles_labels()
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


def _reach(entry: Entry, metric: str) -> float:
  """Half the 95 % interval in points; 0, for no bar, of a single run."""
  found = entry.interval(metric)
  return 100 * (found.high - found.mean) if found.n > 1 else 0.0


def _point(
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
  view.errorbar(
    x,
    y,
    xerr=xerr,
    yerr=_reach(entry, "mean_ood"),
    color=colour,
    marker=marker,
    ms=8,
    mec="white",
    capsize=3,
    linestyle="",
    label=entry.label,
  )


def ood_against_id(entries: Sequence[Entry]) -> figure.Figure:
  """Means with 95 % intervals over seeds, zero-shot, and the Pareto front."""
  picture, view = _new()
  points = [
    (100 * e.interval("id").mean, 100 * e.interval("mean_ood").mean)
    for e in entries
  ]
  styles = _styles(entries)
  for entry, (x, y) in zip(entries, points, strict=True):
    if entry.method == display_names.ZERO_SHOT:
      view.axhline(y, color="black", linewidth=0.8, linestyle=":")
      view.plot(x, y, "*", ms=17, color="black", label=entry.label)
      continue
    _point(view, x, y, entry, styles, xerr=_reach(entry, "id"))
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
  _legend(picture, view)
  return picture


def knob_curves(entries: Sequence[Entry]) -> dict[str, figure.Figure]:
  """ID and OOD accuracy over λ, k and sparsity, where runs vary one of them."""
  pictures: dict[str, figure.Figure] = {}
  for knob, same in curves(entries):
    picture, view = _new(6.4, 4.4)
    x = [entry.config["method"][knob] for entry in same]
    for kind, colour, marker, style, label in _KINDS:
      metric = "id" if kind == "id" else "mean_ood"
      view.errorbar(
        x,
        [100 * entry.interval(metric).mean for entry in same],
        yerr=[_reach(entry, metric) for entry in same],
        color=colour,
        marker=marker,
        linestyle=style,
        capsize=3,
        label=label,
      )
    view.set_xlabel(display_names.axis(knob))
    view.set_ylabel("accuracy (%)")
    view.set_title(
      display_names.at(same[0].config["method"], knob), fontsize=11
    )
    _legend(picture, view)
    name = f"curve_{same[0].method}_{knob}"
    while name in pictures:
      name += "_more"
    pictures[name] = picture
  return pictures


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
    _tidy(view)
    view.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=":")
    errors = []
    for kind, colour, marker, style, label in _KINDS:
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
  _legend(picture, axes[0, 0])
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


def cost(entries: Sequence[Entry]) -> figure.Figure | None:
  """OOD accuracy against optimizer memory and time per step.

  Returns:
    None if no run that took steps recorded its cost.
  """
  drawn = [
    entry
    for entry in entries
    if all(r.get("stats", {}).get("steps") for r in entry.runs.values())
  ]
  if not drawn:
    return None
  picture = figure.Figure(figsize=(9.6, 4.4), dpi=150, layout="constrained")
  styles = _styles(entries)
  axes = picture.subplots(1, 2, sharey=True)
  for entry in drawn:
    stats = [run["stats"] for run in entry.runs.values()]
    memory = np.mean([s["optimizer_bytes"] for s in stats]) / 2**20
    speeds = [s["steps_per_second"] for s in stats if s["steps_per_second"] > 0]
    y = 100 * entry.interval("mean_ood").mean
    for view, x in (
      (axes[0], memory),
      (axes[1], 1 / np.mean(speeds) if speeds else None),
    ):
      if x is not None:
        _point(view, x, y, entry, styles)
  axes[0].set_ylabel("mean out-of-distribution accuracy (%)")
  axes[0].set_xlabel("optimizer state (MiB)")
  axes[1].set_xlabel("seconds per step, with its compilation left out")
  for view in axes:
    _tidy(view)
    view.margins(0.15)
    view.set_xlim(left=0)
  _legend(picture, axes[0])
  return picture
