"""Cells in processes of their own, on this machine or on a Slurm cluster.

Cells that share runs go to one process. Each is saved in its own folder and
goes on from there, whoever starts it again.
"""

import dataclasses
import pathlib
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Literal

import rich.console
import submitit

from experiments.harness.cell import Cell, by_task_and_seed, sharing_runs
from experiments.harness.display import Display
from experiments.harness.places import Places
from experiments.harness.run import (
  Failure,
  already_in,
  lines_of,
  run,
)
from experiments.reporting import records
from experiments.training import compilation_cache, run_folders
from experiments.training.run_checkpoints import Stopped

Cluster = Literal["local", "slurm"]

MINUTES = 24 * 60
"""That a job on Slurm may take before it is queued again."""

SECONDS_TO_SAVE = 60
"""That jobs have when they are asked to stop, before they are cancelled."""


@dataclasses.dataclass(frozen=True)
class Workers:
  """Where the processes are.

  Attributes:
    count: How many at a time.
    cluster: "local" processes, or jobs on "slurm".
    partition: Of Slurm.
  """

  count: int
  cluster: Cluster = "local"
  partition: str | None = None


@dataclasses.dataclass(frozen=True)
class StopFile:
  """Whether jobs are to save and stop, which signals do not always tell them.

  Attributes:
    path: The file that says so by being there.
  """

  path: pathlib.Path

  def __call__(self, step: int) -> bool:
    """Asked after every step of a run."""
    del step
    return self.path.exists()


class Job:
  """Runs some cells; what a process is started with."""

  def __init__(self, cells: Sequence[Cell], places: Places):
    """Keeps what a process cannot tell: its clock may begin elsewhere."""
    self.cells, self.places = list(cells), places
    self._until = time.time() + places.deadline - time.monotonic()

  def __call__(self) -> list[Failure]:
    """Goes on from what is saved, and appends the lines, once each.

    Returns:
      The cells that failed, none of which has stopped another.
    """
    compilation_cache.keep(print)
    failures: list[Failure] = []
    display = Display(rich.console.Console())
    deadline = time.monotonic() + self._until - time.time()
    places = dataclasses.replace(self.places, deadline=deadline)
    run(self.cells, places, display, failures=failures)
    return failures

  def checkpoint(self) -> submitit.helpers.DelayedSubmission:
    """What Slurm starts in its place when its time is up: the same."""
    return submitit.helpers.DelayedSubmission(self)


def spread(
  cells: Sequence[Cell],
  places: Places,
  display: Display,
  *,
  workers: Workers,
  failures: list[Failure],
) -> list[records.Record]:
  """Runs what the results file lacks; see `run`, which each process calls.

  Args:
    cells: To run.
    places: With a folder to save in.
    display: What shows it.
    workers: Where, and how many at a time.
    failures: Cells that fail are put into it, and stop no other.

  Returns:
    The lines of the cells, in order; without those that failed, or that there
    was no time for.
  """
  assert places.checkpoint is not None
  run_folders.claim(places.checkpoint, places.written)
  cells = list({cell.identity: cell for cell in cells}.values())
  done = already_in(cells, places, display)
  executor = submitit.AutoExecutor(
    folder=places.checkpoint / "jobs", cluster=workers.cluster
  )
  executor.update_parameters(timeout_min=MINUTES)
  if workers.cluster == "slurm" and workers.partition is not None:
    executor.update_parameters(slurm_partition=workers.partition)
  asked = StopFile(places.checkpoint / "jobs" / f"stop-{uuid.uuid4().hex}")
  there = dataclasses.replace(places, stop=asked)
  waiting = _jobs(cells, done)
  running: list[tuple[list[Cell], submitit.Job[list[Failure]]]] = []
  with display.counted("lines", len(cells), len(done)) as row:
    try:
      while waiting or running:
        if time.monotonic() > places.deadline:
          waiting = []
        while waiting and len(running) < workers.count:
          some = waiting.pop(0)
          running.append((some, executor.submit(Job(some, there))))
        for some, job in list(running):
          if not job.done():
            continue
          running.remove((some, job))
          done |= lines_of(places.results, cells)
          if job.exception() is None:
            failures += job.result()
          else:
            log = pathlib.Path(job.paths.stderr)
            failures += [
              Failure(cell.title, log)
              for cell in some
              if cell.identity not in done
            ]
          row.update(completed=len(done))
        if places.stop(0):
          raise Stopped(
            "stopped as asked: the same command goes on from what is saved in"
            f" {places.checkpoint}."
          )
        time.sleep(0.1)
    finally:  # interrupted: what runs is saved, and goes on next time
      if running:
        asked.path.touch()
      try:
        _wait([job for _, job in running])
      finally:  # whoever is in a hurry interrupts twice
        for _, job in running:
          job.cancel()
  return [done[cell.identity] for cell in cells if cell.identity in done]


def _wait(jobs: Sequence[submitit.Job[list[Failure]]]) -> None:
  """For jobs that were asked to stop, and save first; not for ever."""
  latest = time.monotonic() + SECONDS_TO_SAVE
  while not all(job.done() for job in jobs) and time.monotonic() < latest:
    time.sleep(0.1)


def _jobs(
  cells: Sequence[Cell], done: Mapping[str, records.Record]
) -> list[list[Cell]]:
  """What one process each runs: cells that share runs, if one is missing."""
  return [
    some
    for group in by_task_and_seed(cells)
    for some in sharing_runs(group)
    if any(cell.identity not in done for cell in some)
  ]
