"""The cells of a sweep: each is one command line of `experiments.train`.

A cell in a process of its own, on this machine or on a Slurm cluster, is saved
in its own folder and goes on from there, whoever starts it again.
"""

import contextlib
import pathlib
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import submitit

from experiments import methods, train
from experiments.reporting import records
from experiments.training import compilation_cache
from gmixout_jax.checkpoint.folders import exclusive

Cluster = Literal["local", "slurm"]


class Failure(NamedTuple):
  """A cell that failed.

  Attributes:
    name: Of the cell.
    log: What it printed.
  """

  name: str
  log: pathlib.Path


def name_of(config: train.Config) -> str:
  """What a cell is called: method and seed."""
  return f"{methods.name_of(config.method)}-seed{config.seed}"


class Cell:
  """Trains and evaluates one configuration, in a process of its own.

  Attributes:
    config: With a folder to save in.
  """

  def __init__(self, config: train.Config):
    self.config = config

  def __call__(self) -> records.Record:
    """Goes on from what is saved, and appends the line, once."""
    config = self.config
    assert config.checkpoint is not None
    compilation_cache.keep(print)
    with exclusive(config.checkpoint):
      record = records.recall(config.checkpoint)
      if record is None:
        record = train.run(config, *train.load(config))
      train.note(config, record)
    return record

  def checkpoint(self) -> submitit.helpers.DelayedSubmission:
    """What Slurm starts in its place when its time is up: the same cell."""
    return submitit.helpers.DelayedSubmission(self)


def spread(
  configs: Sequence[train.Config],
  *,
  workers: int,
  folder: pathlib.Path,
  cluster: Cluster = "local",
  partition: str | None = None,
  minutes: int = 24 * 60,
  ended: Callable[[str], None] = lambda name: None,
) -> tuple[list[records.Record], list[Failure]]:
  """Runs cells in processes of their own.

  Args:
    configs: Each with a folder to save in.
    workers: How many at a time.
    folder: For the logs of the processes.
    cluster: "local" processes, or jobs on "slurm".
    partition: Of Slurm.
    minutes: That a job on Slurm may take before it is queued again.
    ended: Called with the name of each cell that has ended.

  Returns:
    The lines of the cells that worked, and the others with their logs.
  """
  executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
  executor.update_parameters(timeout_min=minutes)
  if cluster == "slurm" and partition is not None:
    executor.update_parameters(slurm_partition=partition)
  waiting = list(enumerate(configs))
  running: dict[int, submitit.Job[records.Record]] = {}
  results: dict[int, records.Record] = {}
  failures: dict[int, Failure] = {}
  try:
    while waiting or running:
      while waiting and len(running) < workers:
        index, config = waiting.pop(0)
        running[index] = executor.submit(Cell(config))
      for index, job in list(running.items()):
        if not job.done():
          continue
        del running[index]
        name = name_of(configs[index])
        error = job.exception()
        if error is None:
          results[index] = job.result()
        else:
          failures[index] = Failure(name, pathlib.Path(job.paths.stderr))
        ended(name)
      time.sleep(0.1)
  finally:  # interrupted: what runs is saved, and goes on next time
    for job in running.values():
      job.cancel()
  in_order = lambda found: [found[index] for index in sorted(found)]
  return in_order(results), in_order(failures)


@contextlib.contextmanager
def logged(name: str, folder: pathlib.Path) -> Iterator[list[Failure]]:
  """Turns an error of a cell of this process into a failure with a log.

  Args:
    name: Of the cell.
    folder: Where its log goes.

  Yields:
    A list that the failure is put into.
  """
  failures: list[Failure] = []
  try:
    yield failures
  except Exception:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    log.write_text(traceback.format_exc())
    failures.append(Failure(name, log))
