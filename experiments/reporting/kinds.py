"""Lines of results by what wrote them."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from experiments.reporting import diagnosed, models_alone, records
from experiments.reporting.entries import check
from experiments.reporting.records import Record


class Lines(NamedTuple):
  """Lines of several files, in order.

  Attributes:
    runs: Of `experiments.train`, `sweep` and the demo.
    bvcl: Of `experiments.diagnostics bvcl`.
    landscapes: Of `experiments.diagnostics landscape`.
    pretrained: Of `experiments.pretraining.pretrain_clip`.
    evaluated: Of `experiments.evaluate`.
  """

  runs: list[Record]
  bvcl: list[Record]
  landscapes: list[Record]
  pretrained: list[Record]
  evaluated: list[Record]


def read(files: Sequence[pathlib.Path]) -> Lines:
  """The lines of some files, by kind.

  Raises:
    FileNotFoundError: If a file is not there.
    ValueError: If there is no line, or one is of no kind or damaged; file and
      line are named.
  """
  lines = Lines([], [], [], [], [])
  for file in files:
    for number, record in enumerate(records.read(file), start=1):
      name = f"{file}:{number}"
      kind = _kind(record)
      try:
        _CHECKS[kind](record, name)
      except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{name} is damaged: {error!r}.") from None
      except ValueError as error:
        said = str(error)
        raise ValueError(said if name in said else f"{name}: {said}") from None
      getattr(lines, kind).append(record)
  if not any(lines):
    raise ValueError(f"no lines in {', '.join(map(str, files))}.")
  return lines


def _kind(record: Record) -> str:
  if "bvcl" in record:
    return "bvcl"
  if "landscape" in record:
    return "landscapes"
  found = record.get("metrics")
  if isinstance(found, dict) and "retrieval" in found:
    return "pretrained"
  config = record.get("config")
  if isinstance(config, dict) and "model" in config and "method" not in config:
    return "evaluated"
  return "runs"


# What a part of the report makes of one line alone is made of it at once.
_CHECKS = {
  "runs": check,
  "bvcl": lambda record, name: diagnosed.tables([record]),
  "landscapes": lambda record, name: diagnosed.check_landscape(record, name),
  "pretrained": lambda record, name: models_alone.pretrained([record]),
  "evaluated": lambda record, name: models_alone.evaluated([record]),
}
