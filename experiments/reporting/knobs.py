"""The settings of methods that results are looked at over, one at a time."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.reporting.entries import Entry, labels
from experiments.reporting.identity import canonical
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
  found: list[tuple[Record, list[Entry]]] = []
  for same in grouped(having, lambda config: without(config, knob, RATE)):
    apart = [same]
    ignored = (knob, RATE)
    if len({value_of(entry) for entry in same}) < len(same):
      apart = grouped(same, lambda config: without(config, knob))
      ignored = (knob,)
    found += [
      (without(each[0].config, *ignored), sorted(each, key=value_of))
      for each in apart
      if len(each) > 1
    ]
  names = labels([config for config, _ in found])
  return [
    KnobCurve(name, tuple(map(value_of, same)), tuple(same))
    for name, (_, same) in zip(names, found, strict=True)
  ]


def grouped(
  entries: Sequence[Entry], key: Callable[[Record], Record]
) -> list[list[Entry]]:
  """Entries with equal keys together, in order of first appearance.

  Args:
    entries: To group.
    key: From a configuration to what must be equal; JSON.
  """
  groups: dict[str, list[Entry]] = {}
  for entry in entries:
    groups.setdefault(canonical(key(entry.config)), []).append(entry)
  return list(groups.values())
