"""Where and how cells are run, which no number depends on."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax

from experiments.data.workers import Workers
from experiments.harness.cell import Cell
from experiments.models import export
from experiments.reporting.identity import canonical, folder_name
from experiments.reporting.records import Record
from experiments.training.sharding import Sharding
from experiments.training.watching import Watching
from gmixout_jax import parallel


def never(step: int) -> bool:
  """Whether to stop after a step: no."""
  del step
  return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
  """Where and how cells are run, which no number depends on.

  Attributes:
    results: The file that lines are appended to.
    checkpoint: A folder to save runs in.
    export: Where to put the trained model; of several cells, a folder.
    one: Whether there is one cell, which has these two for itself.
    save_every: Steps between two checkpoints.
    sharding: How all devices share each run, see
      `experiments.training.sharding`; None for one device per run.
    workers: The threads and processes that decode images.
    watching: Evaluation, early stopping and logs during runs.
    deadline: No cell is begun after it, in seconds as of `time.monotonic`.
    stop: Whether to save and stop after a number of steps.
  """

  results: pathlib.Path
  checkpoint: pathlib.Path | None = None
  export: pathlib.Path | None = None
  one: bool = False
  save_every: int = 100
  sharding: Sharding | None = None
  workers: Workers = dataclasses.field(default_factory=Workers)
  watching: Watching = dataclasses.field(default_factory=Watching)
  deadline: float = float("inf")
  stop: Callable[[int], bool] = never

  @property
  def written(self) -> tuple[pathlib.Path | None, ...]:
    """What goes elsewhere than to the folder of runs, or perhaps into it."""
    watching = self.watching
    return (self.results, self.export, watching.log_dir, watching.profile)

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh | None:
    """The devices that share each run; None if it has one to itself."""
    return None if self.sharding is None else parallel.data_mesh()

  def of_cell(self, cell: Cell) -> pathlib.Path | None:
    """The folder that a cell is noted in when it has ended."""
    if self.checkpoint is None or self.one:
      return self.checkpoint
    return self.checkpoint / cell.folder

  def of_runs(self, cell: Cell) -> str:
    """The folder of the runs of a cell's task and seed."""
    if self.one:
      return ""
    task = canonical([cell.task.config, cell.ending, cell.seed])
    return folder_name(f"runs-seed{cell.seed}", task)

  def exported(self, cell: Cell) -> pathlib.Path | None:
    """Where its model goes."""
    if self.export is None or self.one:
      return self.export
    return self.export / cell.folder

  def has_exported(self, cell: Cell, line: Record) -> bool:
    """Whether the model of a line is where it was asked for.

    An ensemble, which is several models, never is, and is not waited for.
    """
    path = self.exported(cell)
    if path is None or line.get("stats", {}).get("forward_passes", 1) > 1:
      return True
    return export.is_of(path, cell.identity)
