"""The log of a run: metrics.jsonl, and the same numbers for TensorBoard.

A line is a step, the time, and some numbers:

  {"step": 3, "time": 1750000000.1, "loss": 0.9, "learning_rate": 0.001, ...}
  {"step": 3, "time": 1750000000.2, "id_accuracy": 0.7}

The JSON lines are what counts. A run that is resumed leaves out the lines of
steps that it will take again, and writes TensorBoard's file anew from the rest,
which so has each step once even to readers that know nothing of restarts.
"""

import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import tensorboardX

from gmixout_jax.checkpoint.files import replacing

NAME = "metrics.jsonl"
_SUFFIX = ".metrics"  # of our event files, which alone are deleted


class MetricsLog:
  """The log of one run, of which one process writes it."""

  def __init__(self, folder: pathlib.Path, taken: int):
    """Opens the log of a run that goes on after `taken` steps; 0 begins it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    kept = [line for line in read(path) if line["step"] <= taken]
    with replacing(path) as temporary:
      temporary.write_text("".join(map(_line, kept)))
    for events in folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
      events.unlink()
    self._file = path.open("a")
    self._events = tensorboardX.SummaryWriter(
      str(folder), filename_suffix=_SUFFIX
    )
    for line in kept:
      self._show(line)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds numbers of a step, counted from 1; those not finite become null."""
    numbers = {
      name: value if math.isfinite(value) else None
      for name, value in values.items()
    }
    line = {"step": step, "time": round(time.time(), 3), **numbers}
    self._file.write(_line(line))
    self._file.flush()
    self._show(line)

  def close(self) -> None:
    """Ends the log."""
    self._file.close()
    self._events.close()

  def _show(self, line: Mapping[str, Any]) -> None:
    for name, value in line.items():
      if name not in ("step", "time") and value is not None:
        self._events.add_scalar(name, value, line["step"], line["time"])


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of a log; none if there is none.

  Of a process that was killed the last line may be half; it is left out.

  Raises:
    ValueError: If another line is none of a log.
  """
  lines = path.read_text().splitlines() if path.exists() else []
  found = []
  for number, line in enumerate(lines, start=1):
    try:
      values = json.loads(line)
      if not {"step", "time"} <= values.keys():
        raise KeyError("step, time")
    except (ValueError, AttributeError, KeyError) as error:
      if number == len(lines):
        break
      raise ValueError(
        f"{path}:{number}: not a line of a run's log: {line!r}."
      ) from error
    found.append(values)
  return found


def _line(values: Mapping[str, Any]) -> str:
  return json.dumps(values) + "\n"
