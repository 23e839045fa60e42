"""What methods and settings are called, and how methods look in pictures."""

from collections.abc import Mapping
from typing import Any

from experiments import methods

# Okabe and Ito's colours, told apart by every kind of colour vision; the
# markers say the same once more, for prints without colour.
LOOKS = {
  "full_finetuning": ("#D55E00", "s"),
  "mixout": ("#0072B2", "o"),
  "gmixout": ("#009E73", "D"),
  "random_mask": ("#E69F00", "v"),
  "linear_probe": ("#CC79A7", "P"),
}

ZERO_SHOT = "zero_shot"


def title(method: str) -> str:
  """The name of a method as people read it."""
  return " + ".join(_title(part) for part in method.split("+"))


def _title(method: str) -> str:
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
