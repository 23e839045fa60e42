"""The settings of methods that results are looked at over, one at a time."""

import json
from collections.abc import Sequence, Set
from typing import Any, NamedTuple

from experiments.reporting.entries import Entry, labels
from experiments.reporting.records import Record

RATE = "learning_rate"

KNOBS = (
  "anchor_decay", "resample_every", "sparsity", RATE, "rank", "alpha",
)  # fmt: skip
"""λ, k, the share that is frozen, the rate, LoRA's rank, WiSE-FT's α."""

CHOSEN = (RATE, "alpha")
"""Of these a table shows one value that validation accuracy has chosen."""


def setting(method: Record, knob: str) -> Any:
  """A setting of a method, or of the one that it works on; None without."""
  while knob not in method and isinstance(method.get("of"), dict):
    method = method["of"]
  return method.get(knob)


def without(config: Record, *knobs: str) -> Record:
  """A configuration without some settings, on whatever level they are."""

  def stripped(method: Record) -> Record:
    kept = {key: value for key, value in method.items() if key not in knobs}
    if isinstance(kept.get("of"), dict):
      kept["of"] = stripped(kept["of"])
    return kept

  return config | {"method": stripped(config["method"])}


class KnobCurve(NamedTuple):
  """Configurations that differ in one setting alone.

  Attributes:
    label: What they have in common; unique among the curves of a setting.
    values: Of the setting, ascending.
    entries: In that order.
  """

  label: str
  values: tuple[float, ...]
  entries: tuple[Entry, ...]


def curves(entries: Sequence[Entry], knob: str) -> list[KnobCurve]:
  """The curves over a setting, of two values at least.

  Over any other setting than the rate itself, configurations may differ in that
  too, if each value has one alone: it is then the one that was chosen for it.
  """
  having = [
    entry
    for entry in entries
    if isinstance(setting(entry.config["method"], knob), int | float)
    and not isinstance(setting(entry.config["method"], knob), bool)
  ]
  value_of = lambda entry: setting(entry.config["method"], knob)
  found: dict[str, list[Entry]] = {}
  for key, same in _grouped(having, {knob, RATE}).items():
    if len({value_of(entry) for entry in same}) < len(same):
      found |= _grouped(same, {knob})
    else:
      found[key] = same
  found = {
    key: sorted(same, key=value_of)
    for key, same in found.items()
    if len(same) > 1
  }
  names = labels([json.loads(key) for key in found])
  return [
    KnobCurve(name, tuple(map(value_of, same)), tuple(same))
    for name, same in zip(names, found.values(), strict=True)
  ]


def _grouped(
  entries: Sequence[Entry], ignored: Set[str]
) -> dict[str, list[Entry]]:
  groups: dict[str, list[Entry]] = {}
  for entry in entries:
    key = json.dumps(without(entry.config, *ignored), sort_keys=True)
    groups.setdefault(key, []).append(entry)
  return groups
