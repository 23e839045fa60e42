"""Result lines grouped into configurations, with intervals over seeds."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from experiments import metrics
from experiments.reporting import display_names, records


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
  """The runs of one configuration.

  Attributes:
    config: Without the seed.
    runs: By seed. A seed that was run twice counts once, with its last line.
    label: Its name, unique in a report.
  """

  config: records.Record
  runs: dict[int, records.Record]
  label: str

  @property
  def method(self) -> str:
    """The method's name."""
    return self.config["method"]["name"]

  def values(self, metric: str) -> dict[int, float]:
    """A metric by seed, such as "mean_ood"."""
    return {seed: run["metrics"][metric] for seed, run in self.runs.items()}

  def interval(self, metric: str) -> metrics.Interval:
    """Its mean over seeds, with a 95 % interval."""
    return metrics.interval(list(self.values(metric).values()))

  def percent(self, metric: str) -> str:
    """The interval for a table; "–" if it was not measured."""
    measured = all(metric in run["metrics"] for run in self.runs.values())
    return self.interval(metric).percent() if measured else "–"

  @property
  def has_targets(self) -> bool:
    """Whether it was tested out of distribution."""
    return all("mean_ood" in run["metrics"] for run in self.runs.values())


def check(record: records.Record, name: str) -> None:
  """Sees whether a record is a training run.

  Args:
    record: The record.
    name: What to call it if not, such as its file and line.

  Raises:
    ValueError: If it is none, or has an accuracy that is none.
  """
  try:
    found, method = record["metrics"], record["config"]["method"]
    accuracies = {"id": found["id"], **found["ood"]}
    _ = str(method["name"]), int(record["seed"])
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{name} is no line of experiments.train, experiments.sweep or the demo:"
      f" it lacks {error}."
    ) from error
  for key in ("mean_ood", "worst_ood", "mean_id"):
    if key in found:
      accuracies[key] = found[key]
  for part in ("details", "headline"):
    for key, value in dict(found.get(part) or {}).items():
      if isinstance(value, dict):
        value = value.get("top1", 0.0)
      accuracies[f"{part}/{key}"] = value
  for key, value in accuracies.items():
    try:
      share(value)
    except ValueError as error:
      raise ValueError(f"{name}: the accuracy {key!r} {error}") from None


def share(value: Any) -> float:
  """A number in [0, 1].

  Raises:
    ValueError: If it is none.
  """
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if not number or not 0 <= value <= 1:
    raise ValueError(f"must be a number in [0, 1], got {value!r}.")
  return float(value)


def group(results: Iterable[records.Record]) -> list[Entry]:
  """Groups runs that differ in nothing but the seed, in order of appearance.

  Where a method appears with several configurations, its label says in which
  settings they differ.

  Raises:
    ValueError: If there are no records, or one is no training run.
  """
  by_config: dict[str, dict[int, records.Record]] = {}
  for number, record in enumerate(results, start=1):
    check(record, f"record {number}")
    key = json.dumps(record["config"], sort_keys=True)
    by_config.setdefault(key, {})[record["seed"]] = record
  if not by_config:
    raise ValueError("there are no records.")
  configs = [json.loads(key) for key in by_config]
  names = labels(configs)
  return [
    Entry(config, runs, label)
    for config, runs, label in zip(
      configs, by_config.values(), names, strict=True
    )
  ]


def task_of(config: records.Record) -> str:
  """The task of a run: runs of two tasks do not compare.

  Runs with the input pipeline of 0.1.0 are another task, and are marked.
  """
  mark = " (input of 0.1.0)" if records.is_of_squares(config) else ""
  data = config.get("data", "")
  if not isinstance(data, dict):
    return str(data) + mark
  if isinstance(train := data.get("train"), dict):  # folders of class folders
    data = {"root": train.get("folder")}
  words = {"root": "", "source": " from ", "target": " but for "}
  named = [f"{words[k]}{data[k]}" for k in words if data.get(k) is not None]
  backbone = config.get("backbone")
  return "".join(named) + (f", {backbone}" if backbone else "") + mark


def by_task(results: Iterable[records.Record]) -> dict[str, list[Entry]]:
  """Groups results, task by task; errors as of `group`.

  Runs of one task differ in method and seed alone. Where others have the same
  images, the name says what else differs, such as their steps.
  """
  tasks: dict[str, list[records.Record]] = {}
  configs: dict[str, records.Record] = {}
  for record in results:
    config = record.get("config", {})
    own = {key: value for key, value in config.items() if key != "method"}
    key = json.dumps(records.comparable(own), sort_keys=True)
    tasks.setdefault(key, []).append(record)
    configs.setdefault(key, own)
  if not tasks:
    raise ValueError("there are no records.")
  names = _task_names(list(configs.values()))
  return {
    name: group(runs) for name, runs in zip(names, tasks.values(), strict=True)
  }


def _task_names(configs: Sequence[records.Record]) -> list[str]:
  """One each, as of `task_of`, with what differs from others of that name."""
  first = [task_of(config) for config in configs]
  names = []
  for name, config in zip(first, configs, strict=True):
    own = _flat(config)
    others = [
      _flat(other)
      for other, theirs in zip(configs, first, strict=True)
      if theirs == name
    ]
    differing = {
      key: own[key]
      for key in own
      if any(other.get(key) != own[key] for other in others)
    }
    settings = [_setting(key, value) for key, value in differing.items()]
    names.append(", ".join([name, *settings]) if settings else name)
  return names


def _setting(key: str, value: Any) -> str:
  word = key.split(".")[-1].replace("_", " ")
  return f"{value} {word}" if word == "steps" else f"{word} {value}"


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
  if not isinstance(config, dict):
    return {prefix: config}
  pairs: dict[str, Any] = {}
  for key, value in config.items():
    name = key if prefix in ("", "method") else f"{prefix}.{key}"
    pairs |= _flat(value, name)
  return pairs


_NONE = object()


def labels(configs: Sequence[records.Record]) -> list[str]:
  """The method's title, and the settings in which its configurations differ.

  Where these are several, those that a method has by default go without saying,
  but for rates. What is not the default of the method that another works on is
  said in any case: its name alone stands for the default.
  """
  names = []
  for config in configs:
    name = config["method"]["name"]
    own = _flat(config)
    others = [_flat(c) for c in configs if c["method"]["name"] == name]
    differing = [
      key for key in own if any(other.get(key) != own[key] for other in others)
    ]
    usual = display_names.defaults(name)
    said = {
      key: own[key]
      for key in differing
      if len(differing) == 1
      or key.endswith("learning_rate")
      or own[key] != usual.get(key, _NONE)
    }
    said |= {
      key: value
      for key, value in own.items()
      if key.startswith("of.")
      and key in usual
      and not key.endswith(("learning_rate", "name"))
      and value != usual[key]
    }
    names.append(display_names.with_settings(name, said))
  return names


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
  """Which points no other one beats on both axes, by rising first coordinate.

  Of equal points the first counts.
  """
  front = []
  for i, (x, y) in enumerate(points):
    beaten = any(
      (a >= x and b >= y and (a > x or b > y)) or ((a, b) == (x, y) and j < i)
      for j, (a, b) in enumerate(points)
    )
    if not beaten:
      front.append(i)
  return sorted(front, key=lambda i: points[i])


@dataclasses.dataclass(frozen=True)
class Difference:
  """An entry against a reference, on the seeds of both.

  Attributes:
    label: Of the entry.
    paired: The difference, entry − reference.
    p_adjusted: The t-test's p, adjusted for the number of comparisons
      (Benjamini and Hochberg); NaN where p is.
  """

  label: str
  paired: metrics.Paired
  p_adjusted: float


def compare(
  entries: Sequence[Entry], reference: Entry, metric: str
) -> list[Difference]:
  """Every other entry that shares two seeds or more with the reference.

  This leaves out zero-shot, which is one run for all seeds.
  """
  base = reference.values(metric)
  pairs = [
    (entry.label, metrics.paired(entry.values(metric), base))
    for entry in entries
    if entry is not reference and len(entry.runs.keys() & base.keys()) > 1
  ]
  adjusted = corrected([pair.p_t for _, pair in pairs])
  return [
    Difference(label, pair, q)
    for (label, pair), q in zip(pairs, adjusted, strict=True)
  ]


def corrected(p: Sequence[float]) -> list[float]:
  """P-values for their number (Benjamini and Hochberg); NaN stays NaN."""
  from scipy import stats  # a second, which reports alone shall wait

  adjusted = np.array(p, float)
  if (known := np.isfinite(adjusted)).any():
    adjusted[known] = stats.false_discovery_control(adjusted[known])
  return adjusted.tolist()
