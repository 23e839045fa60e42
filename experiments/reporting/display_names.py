"""Display names of methods and settings, and their colours and markers."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments import methods

# Okabe and Ito's colours, distinct in every kind of colour vision; the
# markers say the same once more, for prints without colour.
STYLES = {
  "full_finetuning": ("#D55E00", "s"),
  "mixout": ("#0072B2", "o"),
  "gmixout": ("#009E73", "D"),
  "random_mask": ("#E69F00", "v"),
  "linear_probe": ("#CC79A7", "P"),
}

ZERO_SHOT = "zero_shot"

FULL = "full_finetuning"
"""What methods are compared with."""


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
  "alpha": "α",
  "rank": "rank",
}
"""What settings are called where there is little room."""


def axis(knob: str) -> str:
  """A setting as an axis calls it, such as "anchor decay λ"."""
  return f"{knob.replace('_', ' ')} {SYMBOLS.get(knob, '')}".strip()


def with_settings(method: str, settings: Mapping[str, Any]) -> str:
  """A method and some of its settings, such as "GMixout (p 0.9, k 10)"."""
  parts = [_said(key, value) for key, value in settings.items()]
  return title(method) + (f" ({', '.join(parts)})" if parts else "")


def _said(key: str, value: Any) -> str:
  name = key.rsplit(".")[-1]
  if isinstance(value, bool):
    return name if value else f"no {name}"
  return f"{SYMBOLS.get(name, key)} {value}"


def defaults(method: str) -> dict[str, Any]:
  """The hyperparameters that a method has by default, flat.

  Those of the method that it works on have "of." before them; of a name that
  is not registered there are none.
  """
  try:
    config = methods.described(methods.from_name(method))
  except ValueError:
    return {}
  flat: dict[str, Any] = {}
  prefix = ""
  while isinstance(config, dict):
    inner = config.get("of")
    flat |= {prefix + key: v for key, v in config.items() if key != "of"}
    prefix, config = f"{prefix}of.", inner
  return flat


def constants(configs: Sequence[Mapping[str, Any]]) -> str:
  """The settings that all configurations of each method share, for a caption.

  Returns:
    A sentence, or nothing where no method has a setting of `SYMBOLS`.

  Example:
    >>> constants([{"method": {"name": "gmixout", "sparsity": 0.9}}] * 2)
    'GMixout: p 0.9.'
  """
  by_method: dict[str, list[Mapping[str, Any]]] = {}
  for config in configs:
    method = config["method"]
    by_method.setdefault(method["name"], []).append(method)
  said = []
  for name, same in by_method.items():
    shared = {
      key: same[0][key]
      for key in SYMBOLS
      if key in same[0] and all(m.get(key) == same[0][key] for m in same)
    }
    if shared:
      parts = [f"{SYMBOLS[key]} {value}" for key, value in shared.items()]
      said.append(f"{title(name)}: {', '.join(parts)}.")
  return " ".join(said)


def at(config: Mapping[str, Any], knob: str) -> str:
  """A method, and where a curve over one of its settings was taken.

  Args:
    config: The method's, with its name.
    knob: The setting that the curve is drawn over.
  """
  fixed = {key: config[key] for key in SYMBOLS if key in config and key != knob}
  return with_settings(config["name"], fixed)
