"""Learning rates, chosen by what the result files say of validation images."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.configs.study.plan import Grid
from experiments.harness.cell import Cell
from experiments.methods import Method, described
from experiments.reporting import chosen_rates
from experiments.reporting.identity import identity_of
from experiments.reporting.records import Record
from experiments.tasks.task import Task


class Choice(NamedTuple):
  """What was chosen of a grid.

  Attributes:
    method: At the rate that was chosen.
    at_bottom: Whether that is the smallest of the grid.
    at_top: Whether the best validation accuracy is that of the largest.
  """

  method: Method
  at_bottom: bool
  at_top: bool


def choose(
  task: Task, grid: Grid, seeds: Sequence[int], lines: Sequence[Record]
) -> Choice:
  """The smallest rate within one standard error of the best.

  Args:
    task: What was trained on.
    grid: Of the method.
    seeds: With which it ran; means over them are compared.
    lines: Of all these runs, among others.

  Raises:
    LookupError: If one has not been run.
  """
  by_identity = {identity_of(x["config"], x["seed"]): x for x in lines}
  runs = []
  for method in grid.methods():
    cells = [Cell(task, method, seed) for seed in seeds]
    if missing := [c for c in cells if c.identity not in by_identity]:
      raise LookupError(
        f"not run yet: {described(method)}, seed {missing[0].seed}"
      )
    runs.append([by_identity[cell.identity] for cell in cells])
  index, accuracies = chosen_rates.pick(runs)
  return Choice(
    grid.methods()[index],
    index == 0,
    int(np.argmax(accuracies)) == len(accuracies) - 1,
  )


def grown(
  searched: Mapping[str, Grid], choices: Mapping[str, Choice]
) -> dict[str, Grid]:
  """The grids, one rate longer where a choice was at the edge of one."""
  return {
    name: grid.grown(down=choices[name].at_bottom, up=choices[name].at_top)
    for name, grid in searched.items()
  }
