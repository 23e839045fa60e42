"""Cells in an order: later ones may depend on the lines of earlier ones."""

import dataclasses
import pathlib
from collections.abc import Callable, Generator, Sequence

from experiments.harness.cell import Cell
from experiments.reporting.identity import identity_of
from experiments.reporting.records import Record


@dataclasses.dataclass(frozen=True)
class Stage:
  """Cells whose lines go to one file.

  Attributes:
    cells: In order.
    file: The name of the results file, without a suffix, where a sweep writes
      several; None for the one that the user names.
  """

  cells: Sequence[Cell]
  file: str | None = None


Stages = Generator[Stage, list[Record], None]
"""Yields stages; each `yield` gives the lines of its cells that there are."""


def through(
  stages: Stages,
  results: pathlib.Path,
  work: Callable[[Sequence[Cell], pathlib.Path], list[Record]],
) -> tuple[dict[pathlib.Path, list[Record]], dict[pathlib.Path, int]]:
  """Goes through stages.

  Args:
    stages: Which.
    results: The results file, or the folder of several.
    work: From cells and the file to the lines that there are afterwards.

  Returns:
    The lines of each file, once each, and how many of it are missing, if any.
    Lines of two files may differ in what they are for, and do not mix.

  Raises:
    ValueError: If `results` is a file where a folder is wanted, or the other
      way round.
  """
  lines: dict[pathlib.Path, dict[str, Record]] = {}
  wanted: dict[pathlib.Path, set[str]] = {}
  try:
    stage = next(stages)
    while True:
      path = _file(results, stage.file)
      found = work(stage.cells, path)
      wanted.setdefault(path, set()).update(c.identity for c in stage.cells)
      lines.setdefault(path, {}).update(
        (identity_of(line["config"], line.get("seed", 0)), line)
        for line in found
      )
      stage = stages.send(found)
  except StopIteration:
    missing = {path: len(wanted[path] - lines[path].keys()) for path in wanted}
    return (
      {path: list(own.values()) for path, own in lines.items()},
      {path: count for path, count in missing.items() if count},
    )


def _file(results: pathlib.Path, name: str | None) -> pathlib.Path:
  is_file = results.suffix == ".jsonl"
  if name is None and not is_file:
    raise ValueError(f"--results must be a file NAME.jsonl, got {results}.")
  if name is None:
    return results
  if is_file:
    raise ValueError(
      f"--results must be a folder, for several files such as {name}.jsonl are"
      f" written; got {results}."
    )
  return results / f"{name}.jsonl"
