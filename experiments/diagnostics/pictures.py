"""Pictures of diagnostics, drawn from their records and nothing else."""

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

_WEIGHTS = (
  ("relative_locality", "locality over ‖θ₀‖²"),
  ("angle", "angle between members (°)"),
)


def terms(records: Sequence[results.Record], knob: str) -> figure.Figure:
  """BVCL against one setting of a method, ID and OOD, with 95 % intervals.

  Args:
    records: Of ``python -m experiments.diagnostics bvcl``; at least one.
    knob: The setting that they differ in, such as "sparsity".

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
    for where, colour, marker in (("id", _BLUE, "o"), ("ood", _ORANGE, "s")):
      found = [record["bvcl"][where][term] for record in by_knob]
      _bars(view, x, found, colour, marker, where.upper())
    view.set_title(label, fontsize=10)
  axes[0].legend(frameon=False)
  for view, (term, label) in zip(axes[len(_TERMS) :], _WEIGHTS, strict=True):
    found = [record["bvcl"]["weights"][term] for record in by_knob]
    _bars(view, x, found, "black", "D", None)
    view.set_title(label, fontsize=10)
  for view in axes:
    view.set_xlabel(plots.axis(knob))
    view.margins(x=0.08)
    view.grid(alpha=0.3)
    view.spines[["top", "right"]].set_visible(False)
  config = by_knob[0]["config"]
  picture.suptitle(
    f"{plots.at(config['method'], knob)}\n{len(by_knob[0]['seeds'])} seeds ×"
    f" {config['members']} members, learning rate {config['rate']}",
    fontsize=11,
  )
  return picture


def _bars(
  view: Any,
  x: Sequence[float],
  found: Sequence[Mapping[str, float]],
  colour: str,
  marker: str,
  label: str | None,
) -> None:
  mean = np.array([each["mean"] for each in found])
  ends = np.array([[each["low"], each["high"]] for each in found]).T
  view.errorbar(
    x, mean, yerr=np.abs(ends - mean), color=colour, marker=marker, ms=5,
    capsize=3, label=label,
  )  # fmt: skip


def line(found: Mapping[str, Any]) -> figure.Figure:
  """Accuracy along lines from zero-shot to other weights.

  Args:
    found: ``alpha``, and by end of the line ``id`` and ``ood``, a value each.
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
  return picture


def plane(found: Mapping[str, Any]) -> figure.Figure:
  """OOD and ID accuracy on the plane through three weights.

  Args:
    found: ``x``, ``y``, ``id`` and ``ood`` of the grid; ``names`` and
      ``coordinates`` of the three points.
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
  return picture
