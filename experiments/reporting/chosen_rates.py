"""One learning rate for every method, of all that a sweep has tried."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import metrics
from experiments.reporting.display_names import SYMBOLS
from experiments.reporting.entries import Entry, by_task, labels
from experiments.reporting.knobs import RATE, grouped, setting, without
from experiments.reporting.records import Record


def validation_accuracy(line: Record) -> float:
  """On the images to choose by, in [0, 1].

  These are those of ID accuracy, unless that is on others.
  """
  top1 = _validation(line)["top1"]
  return line["metrics"].get("mean_id", top1)


def validation_images(line: Record) -> int:
  """How many these are.

  Raises:
    ValueError: If the line does not tell.
  """
  found = _validation(line)
  if "reliability" not in found:
    raise ValueError(
      f"a line of {line['config']['method'].get('name')!r} with seed"
      f" {line['seed']} does not tell how many images there are to choose by."
    )
  return int(sum(found["reliability"]["count"]))


def _validation(line: Record) -> Mapping[str, Any]:
  details = line["metrics"].get("details", {})
  return details.get("validation", details.get("id", {}))


def pick(runs: Sequence[Sequence[Record]]) -> tuple[int, list[float]]:
  """The one-standard-error rule, see `metrics.one_standard_error`.

  Args:
    runs: By rising rate, of each the lines of all seeds.

  Returns:
    The index of the rate, and the mean validation accuracy of each.

  Raises:
    ValueError: If a line does not tell how many images there are.
  """
  accuracies = [
    float(np.mean([validation_accuracy(line) for line in lines]))
    for lines in runs
  ]
  images = validation_images(runs[0][0])
  return metrics.one_standard_error(accuracies, images), accuracies


def curves(entries: Sequence[Entry]) -> list[list[Entry]]:
  """Entries that differ in one setting alone, by its rising value.

  It is the learning rate; of WiSE-FT α, unless there is one α.
  """
  found, alone = [], []
  for same in grouped(entries, lambda config: without(config, _usual(config))):
    one = len(same) == 1 and _usual(same[0].config) != RATE
    (alone if one else found).append(same)
  single = [entry for (entry,) in alone]
  found += grouped(single, lambda config: without(config, RATE))
  return [_sorted(same, knob_of(same)) for same in found]


def _sorted(same: Sequence[Entry], knob: str) -> list[Entry]:
  return sorted(same, key=lambda entry: value_of(entry, knob))


def knob_of(same: Sequence[Entry]) -> str:
  """The setting that a curve is over."""
  usual = _usual(same[0].config)
  return usual if len({value_of(e, usual) for e in same}) > 1 else RATE


def value_of(entry: Entry, knob: str) -> float:
  """Of the setting that a curve is over; 0 without."""
  return setting(entry.config["method"], knob) or 0.0


def _usual(config: Record) -> str:
  return "alpha" if config["method"]["name"].endswith("wise_ft") else RATE


def choose(entries: Sequence[Entry]) -> list[Entry]:
  """Of entries that differ in the learning rate alone, one each.

  The smallest rate whose validation accuracy, a mean over the seeds that all
  rates have, is within one standard error of the best; see
  `metrics.one_standard_error`. Rates that ran with fewer seeds than others are
  left out: they were looked at. Where rates have no seed in common, or do not
  tell how many images there are, nothing is chosen and all of them stay.
  """
  found = []
  for same in curves(entries):
    ran = _complete(same)
    seeds = set.intersection(*(set(entry.runs) for entry in ran))
    known = all(
      "reliability" in _validation(run)
      for entry in ran
      for run in entry.runs.values()
    )
    if len(ran) == 1 or not seeds or not known:
      found += ran
      continue
    index, _ = pick([[e.runs[seed] for seed in sorted(seeds)] for e in ran])
    found.append(ran[index])
  return found


def _complete(same: Sequence[Entry]) -> list[Entry]:
  """Those of a curve that ran with as many seeds as any."""
  most = max(len(entry.runs) for entry in same)
  return [entry for entry in same if len(entry.runs) == most]


def sentences(lines: Sequence[Record]) -> list[str]:
  """A sentence on each choice among several rates.

  Args:
    lines: Of runs, perhaps none.
  """
  found = []
  for entries in (by_task(lines) if lines else {}).values():
    picked = choose(entries)
    for same in curves(entries):
      taken = [entry for entry in same if entry in picked]
      same = _complete(same)
      if len(same) == 1 or len(taken) != 1:
        continue
      knob = knob_of(same)
      rates = [value_of(entry, knob) for entry in same]
      (label,) = {entry.label for entry in relabelled(taken)}
      name = SYMBOLS[knob]
      edge = ""
      if taken[0] is same[0]:
        edge = " It is the smallest: try smaller ones."
      if taken[0] is same[-1]:
        edge = " It is the largest: try larger ones."
      found.append(
        f"{label}: {name} {value_of(taken[0], knob):g} is chosen of"
        f" {', '.join(f'{rate:g}' for rate in rates)}.{edge}"
      )
  return found


def relabelled(entries: Sequence[Entry]) -> list[Entry]:
  """Entries whose labels leave out the rate, where they stay unique.

  The rates follow from the rule, and a table has them in a column.
  """
  names = labels([without(entry.config, RATE) for entry in entries])
  return [
    dataclasses.replace(entry, label=name) if names.count(name) == 1 else entry
    for entry, name in zip(entries, names, strict=True)
  ]
