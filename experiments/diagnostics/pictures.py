"""Pictures of diagnostics, drawn from their records and nothing else."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure

from experiments import plots, results

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito: safe for all eyes

_TERMS = (
  ("bias2", "bias²"),
  ("variance", "variance of a member"),
  ("covariance", "covariance of two members"),
  ("residual", "Brier: weight average − ensemble"),
)


def terms(
  records: Sequence[results.Record], knob: str, path: str | os.PathLike[str]
) -> None:
  """BVCL against one setting of a method, ID and OOD.

  Args:
    records: Of ``python -m experiments.diagnostics bvcl``; at least one.
    knob: The setting that they differ in, such as "sparsity".
    path: The picture to write.

  Raises:
    ValueError: If there are no records, or one has no such setting.
  """
  if not records:
    raise ValueError("there are no records to draw.")
  if any(knob not in record["config"]["method"] for record in records):
    raise ValueError(f"a record has no setting {knob!r}.")
  by_knob = sorted(records, key=lambda r: r["config"]["method"][knob])
  x = [record["config"]["method"][knob] for record in by_knob]
  picture = figure.Figure(figsize=(9.6, 5.6), dpi=150, layout="constrained")
  axes = np.ravel(picture.subplots(2, 3))
  for view, (term, label) in zip(axes, _TERMS, strict=False):
    for name, colour, marker in (("id", _BLUE, "o"), ("ood", _ORANGE, "s")):
      y = [record["metrics"][name][term] for record in by_knob]
      view.plot(x, y, color=colour, marker=marker, label=name.upper())
    view.set_title(label, fontsize=10)
  axes[0].legend(frameon=False)
  relative = [r["metrics"]["locality"]["relative"] for r in by_knob]
  axes[4].plot(x, relative, color="black", marker="D")
  axes[4].set_title("locality over ‖θ₀‖²", fontsize=10)
  angle = [r["metrics"]["angle"]["members"] for r in by_knob]
  axes[5].plot(x, angle, color="black", marker="D")
  axes[5].set_title("angle between members (°)", fontsize=10)
  for view in axes:
    view.set_xlabel(knob.replace("_", " "))
    view.grid(alpha=0.3)
    view.spines[["top", "right"]].set_visible(False)
  name = plots.title(by_knob[0]["config"]["method"]["name"])
  seeds = len(by_knob[0]["seeds"])
  picture.suptitle(
    f"{name}: {seeds} seeds × {by_knob[0]['metrics']['id']['members']} members"
  )
  _save(picture, path)


def line(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
  """Accuracy along lines from zero-shot to other weights.

  Args:
    found: ``alpha``, and by end of the line ``id`` and ``ood``, a value each.
    path: The picture to write.
  """
  picture = figure.Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
  view = picture.add_subplot()
  colours = ("#D55E00", "#009E73", "#0072B2", "#E69F00", "#CC79A7")
  for colour, (name, ends) in zip(
    colours, found["lines"].items(), strict=False
  ):
    for kind, style in (("id", "--"), ("ood", "-")):
      view.plot(
        found["alpha"],
        100 * np.array(ends[kind]),
        style,
        color=colour,
        label=f"{plots.title(name)}, {kind.upper()}",
      )
  view.set_xlabel("α: zero-shot at 0, fine-tuned at 1")
  view.set_ylabel("accuracy (%)")
  view.grid(alpha=0.3)
  view.spines[["top", "right"]].set_visible(False)
  view.legend(frameon=False, fontsize=8)
  _save(picture, path)


def plane(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
  """OOD and ID accuracy on the plane through three weights.

  Args:
    found: ``x``, ``y``, ``id`` and ``ood`` of the grid; ``names`` and
      ``coordinates`` of the three points.
    path: The picture to write.
  """
  picture = figure.Figure(figsize=(9.6, 4.4), dpi=150, layout="constrained")
  for view, kind in zip(picture.subplots(1, 2), ("id", "ood"), strict=True):
    filled = view.contourf(
      found["x"],
      found["y"],
      100 * np.array(found[kind]),
      levels=15,
      cmap="cividis",
    )
    picture.colorbar(filled, ax=view, label=f"{kind.upper()} accuracy (%)")
    for name, (x, y) in zip(found["names"], found["coordinates"], strict=True):
      view.plot(x, y, "o", color="white", markeredgecolor="black")
      view.annotate(
        plots.title(name),
        (x, y),
        textcoords="offset points",
        xytext=(0, 8),
        ha="center",
        fontsize=9,
        bbox={"boxstyle": "round", "fc": "white", "ec": "none", "alpha": 0.8},
      )
    view.set_aspect("equal")
    view.set_xlabel("distance in weight space")
  _save(picture, path)


def _save(picture: figure.Figure, path: str | os.PathLike[str]) -> None:
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  picture.savefig(path)
