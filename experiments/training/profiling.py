"""A trace of a few steps, for TensorBoard, xprof or Perfetto."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax

STEPS = 3
"""How many are traced, after the first of a process, which compiles."""


class Profile:
  """Traces steps 2 to 4 of a process with jax.profiler."""

  def __init__(
    self,
    folder: pathlib.Path | None,
    say: Callable[[str], None] | None = None,
  ):
    """Traces nothing yet.

    Args:
      folder: Where the trace goes; without one there is none.
      say: Called with a sentence that tells which steps were traced.
    """
    self._folder = folder
    self._say = say
    self._first = 0
    self._traced = 0
    self._running = False

  def begin(self, taken: int) -> None:
    """The process begins after so many steps."""
    self._first = taken + 1

  def before(self, step: int) -> None:
    """Step number `step`, from 0, is about to be dispatched."""
    if self._folder is not None and step == self._first:
      jax.profiler.start_trace(self._folder)
      self._running = True

  def after(self, step: int, outputs: Any) -> None:
    """It was dispatched, and will return `outputs`."""
    if not self._running:
      return
    self._traced = step + 1 - self._first
    if self._traced == STEPS:
      jax.block_until_ready(outputs)
      self.close()

  def close(self) -> None:
    """Ends the trace, if the run ends before it."""
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
      if self._say is not None:
        first, last = self._first + 1, self._first + self._traced
        self._say(f"The trace in {self._folder} is of steps {first} to {last}.")
    elif self._folder is not None and self._say and not self._traced:
      self._say(f"Nothing was traced: there is no step after {self._first}.")
