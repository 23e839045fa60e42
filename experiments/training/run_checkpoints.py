"""The state of a run in training, and how it is saved and resumed."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float

from experiments.methods.run import Params, Snapshot
from experiments.training.patience import Patience
from gmixout_jax.checkpoint import Checkpoints

State = tuple[Any, Any]  # parameters in their form, the optimizer's state


class Stopped(Exception):
  """A run that was asked to stop has saved itself, and did.

  Attributes:
    STATUS: Of a command that stopped: the same as without a folder to save in,
      so that nobody takes for finished what is not.
  """

  STATUS = 128 + signal.SIGTERM


@dataclasses.dataclass
class Trail:
  """The state of a run: all that its result depends on, except the data.

  Attributes:
    step: Steps taken.
    state: Parameters and optimizer state.
    losses: Of all steps; those to come are 0.
    moved: The most entries that one step changed.
    snapshots: Weights by the step after which they were taken.
    clock: Seconds of the first step, seconds of others, count of the others.
    patience: What decides whether it ends early, if anything may.
  """

  step: int
  state: State
  losses: Float[np.ndarray, " steps"]
  moved: int
  snapshots: dict[str, Params]
  clock: Float[np.ndarray, "3"]
  patience: Patience | None = None

  @classmethod
  def before(cls, state: State, steps: int) -> "Trail":
    """A run that has taken no step yet."""
    return cls(
      0, state, np.zeros(steps, np.float32), 0, {}, np.zeros(3, np.float32)
    )

  @property
  def ended(self) -> bool:
    """Whether no step is to follow."""
    exhausted = self.patience is not None and self.patience.exhausted
    return exhausted or self.step == len(self.losses)

  def taken(self) -> tuple[Snapshot, ...]:
    """The snapshots, earliest first."""
    # Restored they come in the order of their names: "100" before "20".
    steps = sorted(map(int, self.snapshots))
    return tuple(Snapshot(step, self.snapshots[str(step)]) for step in steps)

  def saved(self) -> dict[str, Any]:
    """As a tree of arrays."""
    patience = {}
    if self.patience is not None:
      patience = {"patience": self.patience.saved()}
    return {
      "params": self.state[0],
      "optimizer": self.state[1],
      "losses": self.losses,
      "moved": np.int32(self.moved),
      "snapshots": self.snapshots,
      "clock": self.clock,
      **patience,
    }


class Clock:
  """Times steps, over all the processes that a run took."""

  def __init__(self, trail: Trail):
    """Starts now, at the end of `trail`."""
    self._past = trail.clock
    self._idle = 0.0
    self._ticks = [self._now()]

  def _now(self) -> float:
    return time.perf_counter() - self._idle

  def tick(self) -> float:
    """A step has ended; the seconds since the one before."""
    self._ticks.append(self._now())
    return self._ticks[-1] - self._ticks[-2]

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """What is done inside counts to no step."""
    began = time.perf_counter()
    yield
    self._idle += time.perf_counter() - began

  def note(self, trail: Trail) -> None:
    """Writes what was measured into the trail; compilation is kept apart."""
    if len(self._ticks) > 1:
      start, first, *_, last = [*self._ticks, self._ticks[-1]]
      now = np.array([first - start, last - first, len(self._ticks) - 2])
      trail.clock = (self._past + now).astype(np.float32)


class RunCheckpointer:
  """Saves a run every few steps, and resumes it."""

  def __init__(
    self,
    checkpoints: Checkpoints,
    *,
    every: int,
    validate: Callable[[Params], float] | None = None,
    stop: Callable[[int], bool] = lambda step: False,
  ):
    """Keeps one run.

    Args:
      checkpoints: Of this run alone.
      every: Steps between two checkpoints, at least 1; the end of the run has
        one too.
      validate: Scores the evaluation weights, on validation data. The best
        checkpoint is kept in addition.
      stop: Whether to save and stop after a number of steps.

    Raises:
      ValueError: If `every` is out of range.
    """
    if every < 1:
      raise ValueError(f"save_every must be at least 1 step, got {every}.")
    self._checkpoints = checkpoints
    self._every = every
    self._validate = validate
    self._stop = stop
    self._stopping = False

  def resumed(
    self,
    trail: Trail,
    snapshots: Collection[int],
    weights: Params,
  ) -> Trail:
    """The trail of the newest checkpoint.

    Args:
      trail: Of a run that takes no step yet; returned if there is none.
      snapshots: After which steps they are taken.
      weights: Shapes of a snapshot.

    Raises:
      ValueError: If the checkpoint is of another run.
    """

    def like(step: int) -> dict[str, Any]:
      taken = {str(at): weights for at in sorted(snapshots) if at <= step}
      return dataclasses.replace(trail, snapshots=taken).saved()

    saved = self._checkpoints.restore(like)
    if saved is None:
      return trail
    state = saved.state
    on_host = lambda tree: jax.tree.map(np.array, tree)
    return Trail(
      step=saved.step,
      state=(state["params"], state["optimizer"]),
      losses=on_host(state["losses"]),
      moved=int(state["moved"]),
      snapshots=on_host(state["snapshots"]),
      clock=on_host(state["clock"]),
      patience=trail.patience
      and trail.patience.restored(on_host(state["patience"])),
    )

  def is_due(self, step: int, steps: int) -> bool:
    """Whether to save after `step` of `steps` steps; asked after each."""
    self._stopping = self._stop(step)
    return self._stopping or step == steps or step % self._every == 0

  def save(self, trail: Trail, eval_params: Callable[[], Params]) -> None:
    """Saves in the background.

    Raises:
      OSError: If the folder cannot be written to.
      Stopped: If that was why; it is saved by then.
    """
    score = None if self._validate is None else self._validate(eval_params())
    self._checkpoints.save(trail.step, trail.saved(), score=score)
    if self._stopping and not trail.ended:
      self._checkpoints.wait()
      raise Stopped(
        f"stopped as asked after {trail.step} of {len(trail.losses)} steps,"
        f" saved in {self._checkpoints.folder}: the same command goes on."
      )

  def last(self) -> str:
    """Where the newest checkpoint is; a sentence."""
    self._checkpoints.wait()
    steps = self._checkpoints.steps
    newest = f"step {steps[-1]}" if steps else "none"
    return f"The last good checkpoint in {self._checkpoints.folder}: {newest}."


@contextlib.contextmanager
def stop_on_sigterm(*, saves: bool) -> Iterator[Callable[[int], bool]]:
  """Yields whether SIGTERM has come, to be asked after each step.

  Where nothing is saved nobody asks, so SIGTERM ends the program as ever.

  With several processes the step to stop after is agreed on by JAX's
  coordination service, which catches the signal of any of them.

  Args:
    saves: Whether there is a checkpointer to ask.
  """
  if not saves:
    yield lambda step: False
    return
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  came = []
  before = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
  try:
    yield lambda step: bool(came)
  finally:
    signal.signal(signal.SIGTERM, before)
