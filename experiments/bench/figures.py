"""What every benchmark does alike: interleave, take medians, report."""

import json
import pathlib
import random
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax

from experiments.bench import console
from gmixout_jax.checkpoint.files import replacing

Figures = dict[str, float]
Step = Callable[[], object]


class IncompleteError(RuntimeError):
  """Some of what was to be measured is missing; the message says what."""


class Ready:
  """Steps that have been made and taken once, hence compiled.

  One that fails does not end the rest, nor does the end of the time: both are
  remembered, and `demand_all` is for when the others have been reported.

  Attributes:
    steps: The steps, by name.
    missing: Why there is none, by the names of the others.
  """

  def __init__(self, makers: Mapping[str, Callable[[], Step]], seconds: float):
    """Makes and takes the steps.

    Args:
      makers: What makes each step, the most important first.
      seconds: After so many no other is begun.
    """
    self.steps: dict[str, Step] = {}
    self.missing: dict[str, str] = {}
    end = time.monotonic() + seconds
    for name, make in makers.items():
      if time.monotonic() > end:
        self.missing[name] = "no time was left"
        continue
      try:
        step = make()
        step()
      except Exception as error:
        traceback.print_exc()
        self.missing[name] = f"{type(error).__name__}: {error}"
      else:
        self.steps[name] = step

  def demand_all(self) -> None:
    """Raises IncompleteError if a step is missing."""
    demand_all(self.missing)


def demand_all(missing: Mapping[str, str]) -> None:
  """Raises IncompleteError if anything is missing.

  Args:
    missing: Why, by name.
  """
  if missing:
    reasons = (f"{name}: {reason}" for name, reason in missing.items())
    raise IncompleteError("not measured: " + "; ".join(reasons))


def ratios(
  figures: Mapping[str, float], wanted: Mapping[str, tuple[str, str]]
) -> Figures:
  """Quotients of those figures that are there.

  Args:
    figures: Name to number.
    wanted: Names of dividend and divisor, by the name of the ratio.

  Example:
    >>> ratios({"a": 1, "b": 2}, {"a_over_b": ("a", "b"), "c": ("c", "b")})
    {'a_over_b': 0.5}
  """
  return {
    name: figures[one] / figures[other]
    for name, (one, other) in wanted.items()
    if one in figures and other in figures
  }


def interleaved_medians(steps: Mapping[str, Step], repeats: int) -> Figures:
  """Median seconds of each step, timed in turn.

  The steps take turns, so that a machine that slows down for a while slows
  them all; the median drops what it does to one of them. Their order is
  shuffled: a step pays for the caches that the one before it has filled.

  Args:
    steps: Functions by name; each blocks until its result is ready.
    repeats: Rounds that count, after one that does not (it compiles).
  """
  seconds: dict[str, list[float]] = {name: [] for name in steps}
  names = list(steps)
  for turn in console.track(range(repeats + 1), "Timing"):
    random.Random(turn).shuffle(names)
    for name in names:
      start = time.perf_counter()
      steps[name]()
      if turn > 0:
        seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(taken) for name, taken in seconds.items()}


def report(
  title: str,
  figures: Figures,
  targets: dict[str, float],
  path: pathlib.Path | None,
  *,
  least: Mapping[str, float] | None = None,
) -> None:
  """Prints the figures beside their targets, and writes them to a file.

  Args:
    title: What was measured.
    figures: Name to number.
    targets: Largest wanted value of some figures.
    path: Where to write the figures as one flat JSON object, if anywhere.
    least: Smallest wanted value of some others.
  """
  rows, missed = [], []
  for name, value in figures.items():
    shown = f"{value:,.0f}" if name.endswith("_bytes") else f"{value:.4g}"
    most, floor = targets.get(name), (least or {}).get(name)
    wanted = "" if most is None else f"≤ {most:g}"
    rows.append([name, shown, wanted if floor is None else f"≥ {floor:g}"])
    missed.append(
      (most is not None and value > most)
      or (floor is not None and value < floor)
    )
  device = jax.devices()[0].device_kind
  title = f"{title} ({device}, jax {jax.__version__})"
  console.table(title, ["figure", "value", "target"], rows, missed)
  write(figures, path)


def write(figures: Figures, path: pathlib.Path | None) -> None:
  """Writes figures as one flat JSON object, if there is a path to write to."""
  if path is None:
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  with replacing(path) as temporary:
    temporary.write_text(json.dumps(figures, indent=2) + "\n")


def tree_bytes(tree: Any) -> int:
  """Bytes of all arrays in a tree."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
