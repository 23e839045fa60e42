"""The report's pictures. Every one is drawn from entries alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import figure

from experiments import plots
from experiments.report.entries import Entry, curves, pareto

# Okabe and Ito's colours, told apart by every kind of colour vision.
_COLOURS = (
  "#009E73", "#D55E00", "#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#999999",
)  # fmt: skip
_MARKERS = "Dso^vP<>hX"


def _looks(entries: Sequence[Entry]) -> dict[str, tuple[str, str]]:
  """Colour and marker by label; a method keeps those it has elsewhere."""
  looks = {}
  for entry in entries:
    if entry.method == plots.ZERO_SHOT:
      looks[entry.label] = ("black", "*")
    elif (known := plots.LOOKS.get(entry.method)) and known[
      1:
    ] not in looks.values():
      looks[entry.label] = known[1:]
  spare = [(c, m) for m in _MARKERS for c in _COLOURS]
  for entry in entries:  # those that have no look of their own, or share one
    if entry.label not in looks:
      free = [look for look in spare if look not in looks.values()] or spare
      taken = {colour for colour, _ in looks.values()}
      fresh = [look for look in free if look[0] not in taken]
      looks[entry.label] = (fresh or free)[0]
  return looks


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


def _legend(view: Any, entries: int) -> None:
  """Beside the points while it is small, below them when it is not."""
  if entries <= 6:
    view.legend(frameon=False, fontsize=9)
  else:
    view.legend(
      frameon=False,
      fontsize=8,
      ncols=2,
      loc="upper center",
      bbox_to_anchor=(0.5, -0.12),
    )


def _reach(entry: Entry, metric: str) -> float:
  """Half the 95 % interval in points; 0, for no bar, of a single run."""
  found = entry.interval(metric)
  return 100 * (found.high - found.mean) if found.n > 1 else 0.0


def ood_against_id(entries: Sequence[Entry]) -> figure.Figure:
  """Means with 95 % intervals over seeds, zero-shot, and the Pareto front."""
  picture, view = _new()
  points = [
    (100 * e.interval("id").mean, 100 * e.interval("mean_ood").mean)
    for e in entries
  ]
  looks = _looks(entries)
  for entry, (x, y) in zip(entries, points, strict=True):
    if entry.method == plots.ZERO_SHOT:
      view.axhline(y, color="black", linewidth=0.8, linestyle=":")
      view.plot(x, y, "*", ms=17, color="black", label=entry.label)
      continue
    colour, marker = looks[entry.label]
    view.errorbar(
      x,
      y,
      xerr=_reach(entry, "id"),
      yerr=_reach(entry, "mean_ood"),
      color=colour,
      marker=marker,
      ms=8,
      mec="white",
      capsize=3,
      linestyle="",
      label=entry.label,
    )
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
  _legend(view, len(entries))
  return picture


def knob_curves(entries: Sequence[Entry]) -> dict[str, figure.Figure]:
  """ID and OOD accuracy over λ, k and sparsity, where runs vary one of them."""
  pictures: dict[str, figure.Figure] = {}
  for knob, same in curves(entries):
    picture, view = _new(6.4, 4.4)
    x = [entry.config["method"][knob] for entry in same]
    for metric, colour, marker, style, label in (
      ("id", "#0072B2", "o", "--", "in distribution"),
      ("mean_ood", "#D55E00", "s", "-", "out of distribution"),
    ):
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
    view.set_xlabel(plots.symbol(knob))
    view.set_ylabel("accuracy (%)")
    view.set_title(plots.title(same[0].method), fontsize=11)
    view.legend(frameon=False)
    name = f"curve_{same[0].method}_{knob}"
    while name in pictures:
      name += "_more"
    pictures[name] = picture
  return pictures


def reliability(entries: Sequence[Entry]) -> figure.Figure | None:
  """Accuracy against confidence, ID and OOD, all seeds and domains together.

  Returns:
    None if no run recorded its bins.
  """
  drawn = [e for e in entries if all(_has_bins(r) for r in e.runs.values())]
  if not drawn:
    return None
  picture = figure.Figure(figsize=(9.6, 4.8), dpi=150, layout="constrained")
  looks = _looks(entries)
  for view, kind in zip(picture.subplots(1, 2), ("id", "ood"), strict=True):
    _tidy(view)
    view.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=":")
    for entry in drawn:
      confidence, accuracy, ece = _pooled(entry, kind)
      colour, marker = looks[entry.label]
      view.plot(
        confidence,
        accuracy,
        color=colour,
        marker=marker,
        ms=5,
        label=f"{entry.label}: ECE {100 * ece:.1f} %",
      )
    view.set_xlabel("confidence")
    view.set_ylabel("accuracy")
    view.set_title("in distribution" if kind == "id" else "out of distribution")
    view.legend(frameon=False, fontsize=7)
  return picture


def _has_bins(run: dict[str, Any]) -> bool:
  return "reliability" in run["metrics"].get("details", {}).get("id", {})


def _pooled(entry: Entry, kind: str) -> tuple[np.ndarray, np.ndarray, float]:
  """Bins summed over seeds and sets, and the ECE of the sum."""
  parts = [
    found["reliability"]
    for run in entry.runs.values()
    for name, found in run["metrics"]["details"].items()
    if name.split("/")[0] == kind
  ]
  counts = np.array([part["count"] for part in parts], float)
  total = counts.sum(axis=0)
  some = total > 0

  def pooled(what: str) -> np.ndarray:
    values = np.array([part[what] for part in parts])
    return (counts * values).sum(axis=0)[some] / total[some]

  confidence, accuracy = pooled("confidence"), pooled("accuracy")
  share = total[some] / total.sum()
  return confidence, accuracy, float(share @ np.abs(confidence - accuracy))


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
  looks = _looks(entries)
  axes = picture.subplots(1, 2, sharey=True)
  for entry in drawn:
    stats = [run["stats"] for run in entry.runs.values()]
    memory = np.mean([s["optimizer_bytes"] for s in stats]) / 2**20
    speeds = [s["steps_per_second"] for s in stats if s["steps_per_second"] > 0]
    colour, marker = looks[entry.label]
    y = 100 * entry.interval("mean_ood").mean
    for view, x in (
      (axes[0], memory),
      (axes[1], 1 / np.mean(speeds) if speeds else None),
    ):
      if x is not None:
        view.errorbar(
          x,
          y,
          yerr=_reach(entry, "mean_ood"),
          color=colour,
          marker=marker,
          ms=8,
          mec="white",
          capsize=3,
          linestyle="",
          label=entry.label,
        )
  axes[0].set_ylabel("mean out-of-distribution accuracy (%)")
  axes[0].set_xlabel("optimizer state (MiB)")
  axes[1].set_xlabel("seconds per step, with its compilation left out")
  for view in axes:
    _tidy(view)
    view.margins(0.15)
    view.set_xlim(left=0)
  handles, labels = axes[0].get_legend_handles_labels()
  picture.legend(
    handles, labels, loc="outside lower center", ncols=4, frameon=False
  )
  return picture
