"""Runs the cells that a result file does not hold yet."""

import dataclasses
import itertools
import json
import pathlib
import time
import zlib
from collections.abc import Iterator, Sequence

import rich.progress
from flax import nnx

from experiments import evaluate, methods
from experiments.line import line
from experiments.methods import Member
from experiments.reporting import display_names, records
from experiments.study.choose import identity, line_of
from experiments.study.plan import Cell
from experiments.study.tasks import Setting
from experiments.training.runs import Runs
from gmixout_jax.checkpoint.folders import Held, exclusive


@dataclasses.dataclass(frozen=True)
class Desk:
  """Where work is done.

  Attributes:
    folder: For the result files.
    locks: For what says which cells another process is at.
    bar: Shows how far it is.
    deadline: No cell is begun after it, in seconds as of `time.monotonic`.
  """

  folder: pathlib.Path
  locks: pathlib.Path
  bar: rich.progress.Progress
  deadline: float = float("inf")

  def lines(self, name: str) -> list[records.Record]:
    """What a result file holds so far."""
    path = self.folder / f"{name}.jsonl"
    return records.read(path) if path.exists() else []

  def missing(self, name: str, cells: Sequence[Cell]) -> list[Cell]:
    """The cells that a result file has no line of."""
    lines = self.lines(name)
    return [cell for cell in cells if line_of(cell, lines) is None]

  def work(self, name: str, cells: Sequence[Cell]) -> bool:
    """Runs what is missing, and what no other process is running.

    Args:
      name: Of the result file, to which each line is appended at once.
      cells: In order; consecutive ones of a task and a seed share their runs.

    Returns:
      Whether the file holds all of them now.
    """
    missing = self.missing(name, cells)
    task = self.bar.add_task(
      name, total=len(cells), completed=len(cells) - len(missing)
    )
    for (setting, seed), group in itertools.groupby(
      missing, key=lambda cell: (cell.setting, cell.seed)
    ):
      for some in _shared(list(group)):
        if time.monotonic() > self.deadline:
          return False
        try:
          with exclusive(self.locks / _lock(name, some[0])):
            # Another process may have run them since the file was read.
            some = self.missing(name, some)
            for line in self._run(setting, some, seed):
              records.append(self.folder / f"{name}.jsonl", line)
              self.bar.advance(task)
        except Held:  # somebody else is at it
          continue
    return not self.missing(name, cells)

  def _run(
    self, setting: Setting, cells: Sequence[Cell], seed: int
  ) -> Iterator[records.Record]:
    if not cells:
      return
    loaded = setting.load(seed)
    row = self.bar.add_task("", total=None)

    def progress(member: Member, step: int, loss: float) -> None:
      del loss
      title = display_names.title(methods.name_of(member.method))
      self.bar.update(
        row,
        completed=step + 1,
        total=loaded.task.steps,
        description=f"seed {seed}: {title}",
      )

    def measure(model: nnx.Module) -> records.Record:
      metrics = evaluate.evaluate(model, loaded.held_out, loaded.targets)
      validation = loaded.task.source.validation
      if validation is not loaded.held_out:
        metrics["details"]["validation"] = evaluate.measure(
          evaluate.logits(model, validation), validation.labels
        )
      return metrics

    runs = Runs(loaded.task, [c.method for c in cells], progress=progress)
    for cell in cells:
      config, _ = identity(cell)
      yield line(config, seed, runs, cell.method, measure)
    self.bar.remove_task(row)


def _shared(cells: list[Cell]) -> Iterator[list[Cell]]:
  """Cells that have runs in common, in order; all others on their own."""
  left = cells
  while left:
    group, members, grown = [left[0]], set(left[0].method.members()), True
    while grown:
      grown = False
      for cell in left:
        if cell not in group and members & set(cell.method.members()):
          group.append(cell)
          members |= set(cell.method.members())
          grown = True
    yield group
    left = [cell for cell in left if cell not in group]


def _lock(name: str, cell: Cell) -> str:
  """What every process calls a cell."""
  whole = json.dumps(identity(cell), sort_keys=True).encode()
  return f"{name}_{methods.name_of(cell.method)}_{zlib.crc32(whole):08x}"
