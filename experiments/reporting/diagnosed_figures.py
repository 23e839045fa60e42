"""Pictures of diagnostics: BVCL against a setting, lines, planes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure

from experiments.reporting import display_names, records

# Rows: a shift makes every term several times as large. Okabe and Ito's colours
# are safe for all eyes.
_ROWS = (("id", "ID", "#0072B2"), ("ood", "OOD", "#D55E00"))

_COLUMNS = (
  ("bias²", (("bias2", "bias²", "o", "-"),)),
  (
    "variance and covariance",
    (
      ("variance", "variance", "o", "-"),
      ("covariance", "covariance", "^", "--"),
    ),
  ),
  ("Brier, average − ensemble", (("residual", "residual", "o", "-"),)),
)

_WEIGHTS = (
  ("relative_locality", "locality over ‖θ₀‖²"),
  ("angle", "angle between members (°)"),
)


def terms(
  results: Sequence[records.Record], knob: str, on: str = ""
) -> figure.Figure:
  """BVCL against one setting of a method, ID and OOD, with 95 % intervals.

  Args:
    results: Of ``python -m experiments.diagnostics bvcl``; at least one.
    knob: The setting that they differ in, such as "sparsity".
    on: What the title adds to the method and its settings.

  Raises:
    ValueError: If there are no records, or one has no such setting.
  """
  if not results:
    raise ValueError("there are no records to draw.")
  if any(knob not in record["config"]["method"] for record in results):
    raise ValueError(f"a record has no setting {knob!r}.")
  by_knob = sorted(results, key=lambda r: r["config"]["method"][knob])
  x = [record["config"]["method"][knob] for record in by_knob]
  picture = figure.Figure(figsize=(11, 5.8), dpi=150, layout="constrained")
  axes = picture.subplots(2, 4)
  for row, (where, words, colour) in zip(axes, _ROWS, strict=True):
    for view, (title, drawn) in zip(row, _COLUMNS, strict=False):
      for i, (term, label, marker, style) in enumerate(drawn):
        found = [record["bvcl"][where][term] for record in by_knob]
        beside = np.array(x) + 0.02 * i * np.ptp(x)  # bars would hide bars
        _bars(view, beside, found, colour, marker, style, label)
      view.set_title(f"{words}: {title}", fontsize=9)
      if len(drawn) > 1:
        view.legend(frameon=False, fontsize=8)
  for view, (term, title) in zip(axes[:, -1], _WEIGHTS, strict=True):
    found = [record["bvcl"]["weights"][term] for record in by_knob]
    _bars(view, x, found, "black", "D", "-", None)
    view.set_title(title, fontsize=9)
  for view in axes.flat:
    view.set_xlabel(display_names.axis(knob))
    view.set_xticks(x)
    view.margins(x=0.08)
    view.grid(alpha=0.3)
    view.spines[["top", "right"]].set_visible(False)
  config = by_knob[0]["config"]
  picture.suptitle(
    f"{display_names.at(config['method'], knob)}{on}\n"
    f"{len(by_knob[0]['seeds'])} seeds ×"
    f" {config['members']} members, learning rate {config['rate']}",
    fontsize=11,
  )
  return picture


def _bars(
  view: Any,
  x: Sequence[float] | np.ndarray,
  found: Sequence[Mapping[str, float]],
  colour: str,
  marker: str,
  style: str,
  label: str | None,
) -> None:
  mean = np.array([each["mean"] for each in found])
  ends = np.array([[each["low"], each["high"]] for each in found]).T
  view.errorbar(
    x, mean, yerr=np.abs(ends - mean), color=colour, marker=marker, ms=5,
    linestyle=style, capsize=3, label=label,
  )  # fmt: skip


def start_of(found: Mapping[str, Any]) -> str:
  """What the weights are called that lines start from."""
  names = found.get("plane", {}).get("names") or ["zero_shot"]
  return display_names.title(names[0]).lower()


def line(found: Mapping[str, Any]) -> figure.Figure:
  """Accuracy along lines from the pretrained weights to others.

  Args:
    found: ``alpha``, and by end of the line ``id`` and ``ood``, a value each;
      and perhaps the ``plane``, whose first name is that of the start.
  """
  picture = figure.Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
  view = picture.add_subplot()
  spare = iter((("#E69F00", "v"), ("#CC79A7", "P"), ("#56B4E9", "X")))
  for name, ends in found["lines"].items():
    colour, marker = display_names.STYLES.get(name) or next(spare, ("0.5", "X"))
    for kind, style in (("id", "--"), ("ood", "-")):
      view.plot(
        found["alpha"],
        100 * np.array(ends[kind]),
        style,
        color=colour,
        marker=marker,
        ms=4,
        label=f"{display_names.title(name)}, {kind.upper()}",
      )
  view.set_xlabel(f"α: {start_of(found)} at 0, fine-tuned at 1")
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
    points = zip(found["names"], found["coordinates"], strict=True)
    for i, (name, (x, y)) in enumerate(points):
      below = i == 1  # beside the first
      view.plot(x, y, "o", color="white", markeredgecolor="black")
      view.annotate(
        display_names.title(name),
        (x, y),
        textcoords="offset points",
        xytext=(0, -8 if below else 8),
        ha="center",
        va="top" if below else "bottom",
        fontsize=9,
        bbox={"boxstyle": "round", "fc": "white", "ec": "none", "alpha": 0.8},
      )
    view.set_aspect("equal")
    view.set_xlabel("distance in weight space")
  return picture
