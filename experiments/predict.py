"""Predicts the classes of the images in a folder and below it.

  python -m experiments.predict MODEL FOLDER --out predictions.csv
  python -m experiments.predict MODEL FOLDER --out predictions.csv --top 3
  python -m experiments.predict CLIP FOLDER --out predictions.csv \
    --classes cat dog --templates "a photo of a {}." "a drawing of a {}."

The CSV has a header and a row for each image: its file, relative to FOLDER, the
class and its probability, and with --top further classes. Images are prepared
as in the evaluation of MODEL. Files that cannot be read have no row; the
command lists them.
"""

import csv
import dataclasses
import pathlib
from collections import Counter
from typing import Annotated

import numpy as np
import rich.table
import tyro
from rich.markup import escape

from experiments import command_line, metrics
from experiments.data import folders, listing
from experiments.data.decode import EXTENSIONS, View, decode
from experiments.data.images import ImageSet
from experiments.harness.command import session
from experiments.model_options import ModelOptions
from experiments.models import evaluation
from experiments.run_options import check_writable
from gmixout_jax.checkpoint.files import replacing

_SHOWN = 12
"""Classes in the table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelOptions):
  """A classifier and the images to predict.

  Attributes:
    folder: The images, at any depth.
    out: The CSV; it appears whole or not at all.
    top: How many classes for each image, the likeliest first.
  """

  folder: Annotated[pathlib.Path, tyro.conf.Positional]
  out: pathlib.Path
  top: int = 1


class Readable:
  """Decodes files. One that is no image is black, and it is noted why."""

  def __init__(self, paths: list[pathlib.Path], view: View):
    self.paths, self.view = paths, view
    self.broken: dict[int, str] = {}

  def read(self, row: int) -> str:
    """Its path."""
    return str(self.paths[row])

  def load(self, row: int) -> np.ndarray:
    """Decodes a file."""
    try:
      return decode(self.paths[row], self.view)
    except ValueError as error:
      self.broken[row] = str(error)
      return np.zeros((self.view.size, self.view.size, 3), np.uint8)

  def name(self, row: int) -> str:
    """Its path."""
    return str(self.paths[row])


def main(config: Config) -> None:
  """Predicts, writes the CSV and shows how many images are of which class."""
  with session(saves=False) as started:
    if not config.folder.is_dir():
      raise FileNotFoundError(
        f"no folder {config.folder}: expected one with images."
      )
    paths, left_out = listing.below(config.folder)
    for note in folders.notes(config.folder, left_out):
      started.display.say(note)
    if not paths:
      raise FileNotFoundError(
        f"no images in {config.folder} or below it: expected files that end in"
        f" {', '.join(sorted(EXTENSIONS))}."
      )
    if config.out.is_dir():
      raise ValueError(f"--out must be a file, got the folder {config.out}.")
    check_writable("out", config.out.absolute().parent)
    found = config.load()
    names = found.class_names or ()
    if not 1 <= config.top <= len(names):
      raise ValueError(
        f"--top must be from 1 to {len(names)}, the number of classes of"
        f" {config.model}, got {config.top}."
      )
    loader = Readable(paths, found.view)
    images = ImageSet.of(loader, np.zeros(len(paths), int), names)
    with (
      started.display.shown(),
      started.display.predicting(len(paths)) as progress,
    ):
      logits = evaluation.logits(
        found.model, images, batch_size=config.batch_size, progress=progress
      )
    kept = [row for row in range(len(paths)) if row not in loader.broken]
    write(config, [paths[row] for row in kept], logits[kept], names)
    say = started.display.say
    for row in sorted(loader.broken):
      say(f"Left out: {loader.broken[row]}")
    if kept:
      started.console.print(table(logits[kept], names))
    say(
      f"{len(kept)} of {len(paths)} images are in {config.out}"
      + (f"; {len(paths) - len(kept)} cannot be decoded." if loader.broken
         else ".")
    )  # fmt: skip


def write(
  config: Config,
  paths: list[pathlib.Path],
  logits: np.ndarray,
  names: tuple[str, ...],
) -> None:
  """Writes a row for each image."""
  probabilities = metrics.softmax(logits)
  # Of equals the first, as argmax has it.
  order = np.argsort(-probabilities, axis=1, kind="stable")[:, : config.top]
  header = ["file", "class", "probability"]
  for rank in range(2, config.top + 1):
    header += [f"class_{rank}", f"probability_{rank}"]
  with (
    replacing(config.out) as temporary,
    open(
      temporary, "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file,
  ):
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(header)
    for path, best, row in zip(paths, order, probabilities, strict=True):
      cells = [path.relative_to(config.folder).as_posix()]
      for label in best:
        cells += [names[label], f"{row[label]:.6f}"]
      rows.writerow(cells)


def table(logits: np.ndarray, names: tuple[str, ...]) -> rich.table.Table:
  """How many images are predicted to be of each class, most first."""
  counts = Counter(logits.argmax(-1).tolist())
  view = rich.table.Table("class", title="predictions")
  view.add_column("images", justify="right")
  common = counts.most_common()
  for label, count in common[:_SHOWN]:
    view.add_row(escape(names[label]), str(count))
  if rest := common[_SHOWN:]:
    view.add_row(f"{len(rest)} others", str(sum(count for _, count in rest)))
  return view


def parse(arguments: list[str] | None = None) -> Config:
  """Reads the command line."""
  return command_line.parse(
    Config,
    args=arguments,
    prog="python -m experiments.predict",
    description=__doc__,
  )


if __name__ == "__main__":
  main(parse())
