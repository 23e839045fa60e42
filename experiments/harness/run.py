"""Runs the cells that a results file lacks: one way to resume, and to append.

What counts as done is a line of the same configuration and seed in the results
file. Each line is appended when its cell ends, so a sweep that is stopped or
killed goes on when the same command is given again; with a folder to save in,
runs go on in the middle. Several commands may work on one sweep at once if they
share that folder: each takes cells that no other one has.
"""

import contextlib
import pathlib
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
from flax import nnx

from experiments.data import workers
from experiments.harness import measured
from experiments.harness.cell import Cell, by_task_and_seed, sharing_runs
from experiments.harness.display import Display, ProgressRow
from experiments.harness.places import Places
from experiments.methods.zero_shot import ZeroShot
from experiments.models import export
from experiments.models.classifier import Ensemble
from experiments.reporting import records
from experiments.reporting.entries import task_of
from experiments.reporting.identity import identity_of
from experiments.tasks.task import Opened
from experiments.training import run_folders
from experiments.training.run_checkpoints import Stopped
from experiments.training.runs import Runs, Saving, Watch
from gmixout_jax.checkpoint.folders import Held, exclusive
from gmixout_jax.checkpoint.processes import agreed, leads


class Failure(NamedTuple):
  """A cell that failed.

  Attributes:
    title: Of the cell.
    log: What it printed.
  """

  title: str
  log: pathlib.Path


def run(
  cells: Sequence[Cell],
  places: Places,
  display: Display,
  *,
  failures: list[Failure] | None = None,
) -> list[records.Record]:
  """Runs what the results file lacks.

  Args:
    cells: Those of a task and a seed share their runs. Of equal ones the first
      is run.
    places: Where.
    display: What shows it.
    failures: Cells that fail are put into it, and stop no other; without it
      the first error is raised. So is one of images or weights that cannot be
      read, if there is no other task.

  Returns:
    The lines of the cells, in order; without those that another command is at,
    that failed, or that there was no time for.

  Raises:
    Stopped: If it was asked to stop; what runs is saved then.
    ValueError: If what is saved is of another configuration.
  """
  workers.choose(places.workers)
  cells = list({cell.identity: cell for cell in cells}.values())
  done = already_in(cells, places, display)
  others = len({repr(cell.task.config) for cell in cells}) > 1
  with display.counted("lines", len(cells), len(done)) as row:
    for group in by_task_and_seed(cells):
      opened = _Once(group[0], display)
      for some in sharing_runs(group):
        if all(cell.identity in done for cell in some):
          continue
        if agreed(time.monotonic() > places.deadline):
          break
        with _held(some, places) as free:
          if not free:
            continue
          # Another command may have run some since the file was read.
          done |= _done(some, places)
          runner = _Group(some, opened, places, display, failures, others)
          for line in runner.lines(done):
            done[identity_of(line["config"], line["seed"])] = line
            row.update(completed=len(done))
  return [done[cell.identity] for cell in cells if cell.identity in done]


def already_in(
  cells: Sequence[Cell], places: Places, display: Display
) -> dict[str, records.Record]:
  """The lines that are there already, by identity; it says how many."""
  done = _done(cells, places)
  if done:
    display.say(
      f"{len(done)} of {len(cells)} lines are in {places.results} already."
    )
  return done


def lines_of(
  path: pathlib.Path, cells: Sequence[Cell]
) -> dict[str, records.Record]:
  """The lines of some cells that a results file holds, by identity.

  Of several the last counts; lines of other kinds are passed over.
  """
  if not path.exists():
    return {}
  wanted = {cell.identity for cell in cells}
  found = {}
  for line in records.read(path):
    if not isinstance(line.get("config"), dict) or "metrics" not in line:
      continue
    identity = identity_of(line["config"], line.get("seed", 0))
    if identity in wanted:
      found[identity] = line
  return found


def _done(cells: Sequence[Cell], places: Places) -> dict[str, records.Record]:
  """The cells that need not be run, with their lines."""
  if not leads():
    return agreed({})
  found = lines_of(places.results, cells)
  return agreed(
    {
      cell.identity: found[cell.identity]
      for cell in cells
      if cell.identity in found
      and places.has_exported(cell, found[cell.identity])
    }
  )


@contextlib.contextmanager
def _held(cells: Sequence[Cell], places: Places) -> Iterator[bool]:
  """Keeps other commands from these cells; yields whether all are free.

  Raises:
    Held: If there is one cell, and another command is at it.
    CheckpointError: If the folder to save in is one of something else.
  """
  if places.checkpoint is None:
    yield True
    return
  with contextlib.ExitStack() as stack:
    free = True
    if leads():
      run_folders.claim(places.checkpoint, places.written)
      folders = [places.checkpoint]
      if not places.one:
        locks = places.checkpoint / "locks"
        # In one order, or of two commands each might wait for the other.
        folders = sorted(locks / cell.folder for cell in cells)
      try:
        for folder in folders:
          stack.enter_context(exclusive(folder))
      except Held:
        if places.one:
          raise
        free = False
    yield agreed(free)


class _Once:
  """A task and a seed, opened when first asked for."""

  def __init__(self, cell: Cell, display: Display):
    self._cell, self._display = cell, display
    self._opened: Opened | None = None
    self._error: Exception | None = None

  def __call__(self) -> Opened:
    if self._error is not None:  # other cells have met it
      raise self._error
    if self._opened is None:
      try:
        with self._display.reading("images and weights"):
          self._opened = self._cell.task.open(self._cell.seed)
      except Exception as error:
        self._error = error
        raise
      for note in self._opened.notes:
        self._display.note(note)
    return self._opened


class _Group:
  """Cells that share runs."""

  def __init__(
    self,
    cells: list[Cell],
    opened: _Once,
    places: Places,
    display: Display,
    failures: list[Failure] | None,
    others: bool,
  ):
    self._cells, self._opened, self._places = cells, opened, places
    self._display, self._failures = display, failures
    self._others = others

  def lines(self, done: dict[str, records.Record]) -> Iterator[records.Record]:
    """Those that are missing, as their cells end."""
    missing = [cell for cell in self._cells if cell.identity not in done]
    left = []
    for cell, line in zip(missing, self._recalled(missing), strict=True):
      if line is None:
        left.append(cell)
        continue
      self._append(cell, line)
      yield line
    if not left:
      return
    first, opened = left[0], None
    with self._others_go_on(left):
      opened = self._opened()
    if opened is None:
      return
    for cell in left:
      if (advice := cell.method.advice_on_length(opened.steps)) is not None:
        self._display.note(advice)
    data = task_of(first.config)
    with self._display.running(
      f"{data}, seed {first.seed}" if data else f"seed {first.seed}",
      steps=opened.steps,
      runs=len({m for cell in left for m in cell.method.members()}),
    ) as row:
      outcomes = None
      with self._others_go_on(left):
        outcomes = self._outcomes(first, opened, row)
      for cell in left if outcomes is not None else ():
        line = None
        with self._logged(cell):
          line = self._run(cell, opened, outcomes, row)
        if line is not None:
          yield line

  def _recalled(self, cells: list[Cell]) -> list[records.Record | None]:
    """Lines of cells that have ended before they could be appended."""
    found: list[records.Record | None] = []
    for cell in cells if leads() else ():
      folder = self._places.of_cell(cell)
      line = records.recall(folder) if folder else None
      if line is not None and folder is not None:
        records.check_same(folder, line, cell.config, cell.seed)
        if not self._places.has_exported(cell, line):
          line = None
      found.append(line)
    return agreed(found)

  def _outcomes(
    self, first: Cell, opened: Opened, row: ProgressRow
  ) -> measured.Outcomes:
    if opened.outcomes is not None:
      return opened.outcomes
    places, folder = self._places, self._places.of_runs(first)
    saving = None
    if places.checkpoint is not None:
      saving = Saving(
        places.checkpoint / folder,
        every=places.save_every,
        config=records.plain(first.task.config)
        | first.ending
        | {"seed": first.seed},
        stop=places.stop,
      )
    seen = opened.ood if places.watching.watch_ood else {}
    if places.watching.watch_ood and not seen:
      raise ValueError("--watch-ood needs OOD images, and there are none.")
    return Runs(
      opened,
      [cell.method for cell in self._cells],
      progress=row.progress,
      saving=saving,
      mesh=places.mesh,
      sharding=places.sharding or "data",
      watch=Watch(
        places.watching.below(folder),
        ood=seen,
        evaluated=row.evaluated,
        say=self._display.say,
        evaluating=row.evaluating,
      ),
      shared=not places.one,
    )

  def _run(
    self,
    cell: Cell,
    opened: Opened,
    outcomes: measured.Outcomes,
    row: ProgressRow,
  ) -> records.Record:
    places = self._places
    if isinstance(cell.method, ZeroShot) and not opened.zero_shot:
      raise ValueError(
        "zero_shot needs a CLIP with its text tower: the head of this backbone"
        " was fitted to images, which is the method linear_probe. Use that"
        " instead of zero_shot; to evaluate an export unchanged, use"
        " experiments.evaluate."
      )

    def measure(model: nnx.Module) -> records.Record:
      return measured.measure(
        opened, model, mesh=places.mesh, progress=row.evaluating
      )

    def save(model: nnx.Module) -> None:
      # An ensemble is several models, and no file of one format holds them.
      path = places.exported(cell)
      if path is not None and leads() and not isinstance(model, Ensemble):
        export.save(
          model,
          path,
          class_names=opened.source.train.class_names,
          view=opened.view,
        )
        export.note(path, cell.identity)

    line = records.plain(
      measured.line(cell, outcomes, measure, opened.steps, save)
    )
    folder = places.of_cell(cell)
    if leads():
      if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        records.note(folder, line)
      self._append(cell, line)
    return line

  def _append(self, cell: Cell, line: records.Record) -> None:
    path = self._places.results
    if not leads():
      return
    with records.alone(path):
      if not lines_of(path, [cell]):
        records.append(path, line)

  def _others_go_on(
    self, cells: Sequence[Cell]
  ) -> contextlib.AbstractContextManager[None]:
    """An error fails these cells, and ends a command that has no others."""
    return self._logged(*cells) if self._others else contextlib.nullcontext()

  @contextlib.contextmanager
  def _logged(self, *cells: Cell) -> Iterator[None]:
    """Turns an error into a failure of cells, with logs, if that is wanted."""
    if self._failures is None or jax.process_count() > 1:
      yield
      return
    try:
      yield
    except Stopped:
      raise
    except Exception as error:
      places = self._places
      logs = (places.checkpoint or places.results.parent) / "failed"
      logs.mkdir(parents=True, exist_ok=True)
      # The error once more, in a line of its own: jax ends tracebacks with a
      # note, and messages of XLA have many lines.
      said = f"{type(error).__name__}: {' '.join(str(error).split())}"
      for cell in cells:
        log = logs / f"{cell.folder}.log"
        log.write_text(f"{traceback.format_exc()}\n{said}\n")
        self._failures.append(Failure(cell.title, log))
