"""A cell: one method on one task with one seed, and its identity."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator

from experiments import methods
from experiments.methods import Member, Method
from experiments.reporting import display_names, records
from experiments.reporting.identity import folder_name, identity_of
from experiments.reporting.records import Record
from experiments.tasks.task import Task


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
  """What one result line is of.

  Attributes:
    task: The task.
    method: The method.
    seed: The PRNG seed.
    ending: Early stopping, as a line records it; empty without.
  """

  task: Task
  method: Method
  seed: int
  ending: Record = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def config(self) -> Record:
    """What a line records: all that results depend on, except the seed."""
    method = records.plain(methods.described(self.method))
    return {"method": method, **records.plain(self.task.config), **self.ending}

  @functools.cached_property
  def identity(self) -> str:
    """Equal for two cells only if they are the same."""
    return identity_of(self.config, self.seed)

  @property
  def title(self) -> str:
    """Its name for display."""
    name = display_names.title(methods.name_of(self.method))
    return f"{name}, seed {self.seed}"

  @property
  def folder(self) -> str:
    """The name of its folder, unique among cells."""
    readable = f"{methods.name_of(self.method)}-seed{self.seed}"
    return folder_name(readable, self.identity)


def by_task_and_seed(cells: Iterable[Cell]) -> list[list[Cell]]:
  """Cells that one opening of a task serves, in order of first appearance."""
  groups: dict[tuple[int, int], list[Cell]] = {}
  for cell in cells:
    groups.setdefault((id(cell.task), cell.seed), []).append(cell)
  return list(groups.values())


def sharing_runs(cells: list[Cell]) -> Iterator[list[Cell]]:
  """Cells of one task and seed that have runs in common; others alone."""
  left = cells
  while left:
    group, members, grown = [left[0]], _members(left[0]), True
    while grown:
      grown = False
      for cell in left:
        if cell not in group and members & _members(cell):
          group.append(cell)
          members |= _members(cell)
          grown = True
    yield group
    left = [cell for cell in left if cell not in group]


def _members(cell: Cell) -> set[Member]:
  return set(cell.method.members())
