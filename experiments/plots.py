"""Pictures drawn from result rows, and from nothing else.

Every function reads records as `experiments.results.read` returns them, so a
picture can be redrawn from the results file without training anything.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import figure

from experiments import methods, results

# Okabe and Ito's colours, told apart by every kind of colour vision; the
# markers say the same once more, for prints without colour.
LOOKS = {
  "full_finetuning": ("Full fine-tuning", "#D55E00", "s"),
  "mixout": ("Mixout", "#0072B2", "o"),
  "gmixout": ("GMixout", "#009E73", "D"),
  "random_mask": ("Random mask", "#E69F00", "v"),
  "linear_probe": ("Linear probe", "#CC79A7", "P"),
}
_OTHERS = ("#56B4E9", "#F0E442", "#999999")

ZERO_SHOT = "zero_shot"


def title(method: str) -> str:
  """The name of a method as people read it."""
  return " + ".join(_title(part) for part in method.split("+"))


def _title(method: str) -> str:
  if method == ZERO_SHOT:
    return "Zero-shot"
  if method in LOOKS:
    return LOOKS[method][0]
  known = methods.METHODS.get(method)
  own = known.title if known else ""
  return own or method.replace("_", " ").capitalize()


SYMBOLS = {
  "sparsity": "p",
  "anchor_decay": "λ",
  "resample_every": "k",
  "learning_rate": "lr",
  "head_learning_rate": "head lr",
}
"""What settings are called where there is little room."""


def axis(knob: str) -> str:
  """A setting as an axis calls it, such as "anchor decay λ"."""
  return f"{knob.replace('_', ' ')} {SYMBOLS.get(knob, '')}".strip()


def with_settings(method: str, settings: Mapping[str, Any]) -> str:
  """A method and some of its settings, such as "GMixout (p 0.9, k 10)"."""
  parts = [
    f"{SYMBOLS.get(key, key)} {value}" for key, value in settings.items()
  ]
  return title(method) + (f" ({', '.join(parts)})" if parts else "")


def at(config: Mapping[str, Any], knob: str) -> str:
  """A method, and where a curve over one of its settings was taken.

  Args:
    config: The method's, with its name.
    knob: The setting that the curve is drawn over.
  """
  fixed = {key: config[key] for key in SYMBOLS if key in config and key != knob}
  return with_settings(config["name"], fixed)


def ood_against_id(
  records: Sequence[results.Record],
  path: str | os.PathLike[str],
  *,
  heading: str = "",
) -> None:
  """Draws out-of-distribution against in-distribution accuracy.

  A method is a filled marker at the mean over seeds, with one standard
  deviation to each side, and a faint small marker per seed. Zero-shot is a
  black star, with a dotted line at its height: points below it have paid for
  their in-distribution accuracy with robustness.

  Args:
    records: Runs with `config.method.name`, `metrics.id` and
      `metrics.mean_ood`; at least one.
    path: The picture to write; its ending names the format.
    heading: The title.

  Raises:
    ValueError: There are no records.
  """
  if not records:
    raise ValueError("there are no records to draw.")
  picture = figure.Figure(figsize=(6.4, 4.8), dpi=150, layout="constrained")
  axes = picture.add_subplot()
  by_method: dict[str, list[results.Record]] = {}
  for record in records:
    by_method.setdefault(_name(record), []).append(record)
  spare = iter(_OTHERS)
  for method, runs in by_method.items():
    x = [100 * run["metrics"]["id"] for run in runs]
    y = [100 * run["metrics"]["mean_ood"] for run in runs]
    if method == ZERO_SHOT:
      axes.axhline(y[0], color="black", linewidth=0.8, linestyle=":")
      axes.plot(
        x[0],
        y[0],
        marker="*",
        markersize=17,
        color="black",
        linestyle="",
        label=title(method),
      )
      continue
    look = LOOKS.get(method) or ("", next(spare, _OTHERS[-1]), "X")
    _, colour, marker = look
    axes.scatter(x, y, s=16, color=colour, marker=marker, alpha=0.4, lw=0)
    (across,) = results.summarise(runs, "id")
    (up,) = results.summarise(runs, "mean_ood")
    axes.errorbar(
      100 * across.mean,
      100 * up.mean,
      xerr=100 * across.std,
      yerr=100 * up.std,
      color=colour,
      marker=marker,
      markersize=9,
      markeredgecolor="white",
      capsize=3,
      linestyle="",
      label=title(method),
    )
  axes.set_xlabel("in-distribution accuracy (%)", fontsize=11)
  axes.set_ylabel("out-of-distribution accuracy (%)", fontsize=11)
  axes.set_title(heading, fontsize=12)
  axes.margins(0.12)
  axes.grid(alpha=0.3)
  axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False, fontsize=10)
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  picture.savefig(path)


def _name(record: results.Record) -> Any:
  return record["config"]["method"]["name"]
