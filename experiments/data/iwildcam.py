"""iWildCam as WILDS 2.0 ships it: animals before camera traps.

  <root>/metadata.csv   columns split, filename, y, location_remapped, ...
  <root>/categories.csv columns y and name, if it is there
  <root>/train/<filename>, whatever the split

A domain is a camera trap. "id_val" and "id_test" are other days of the traps of
"train"; "val" and "test" are other traps.

References:
  Koh et al., 2021, https://arxiv.org/abs/2012.07421.
"""

import csv
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.data.damage import inside, numbered, parsing
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet

SPLITS = ("train", "id_val", "id_test", "val", "test")

_COLUMNS = ("split", "filename", "y", "location_remapped")


def open_images(
  root: str | os.PathLike[str], *, view: View
) -> dict[str, ImageSet]:
  """Every split.

  Args:
    root: The folder with metadata.csv.
    view: What to see of every image; WILDS squeezes to 448.

  Returns:
    Split -> its images in the order of metadata.csv, for "train", "id_val",
    "id_test", "val" and "test" as far as the file has them. All share classes
    (numbers, without categories.csv) and traps.

  Raises:
    FileNotFoundError: If metadata.csv is missing. Images are looked for when
      they are decoded.
    ValueError: If it lacks a column, or a line is cut short or has a value out
      of range.
  """
  root = pathlib.Path(root)
  file = root / "metadata.csv"
  if not file.is_file():
    raise FileNotFoundError(
      f"no {file}: expected columns {', '.join(_COLUMNS)}."
    )
  splits, paths, labels, places = [], [], [], []
  with parsing(file), open(file, newline="", encoding="utf-8") as lines:
    reader = csv.DictReader(lines)
    if lacking := [c for c in _COLUMNS if c not in (reader.fieldnames or ())]:
      raise ValueError(f"{file} lacks the columns {', '.join(lacking)}.")
    for number, row in enumerate(reader, start=2):
      if absent := [c for c in _COLUMNS if row[c] is None]:
        raise ValueError(
          f"{file}:{number}: the line ends before {', '.join(absent)}: is the"
          " file complete?"
        )
      if row["split"] not in SPLITS:
        raise ValueError(
          f"{file}:{number}: split {row['split']!r}, expected one of"
          f" {', '.join(SPLITS)}."
        )
      try:
        labels.append(int(row["y"]))
        places.append(int(row["location_remapped"]))
      except ValueError as error:
        raise ValueError(f"{file}:{number}: {error}") from error
      splits.append(row["split"])
      where = f"{file}:{number}"
      paths.append(str(inside(root / "train", row["filename"], where)))
  if not labels:
    raise ValueError(f"{file} has no rows.")
  locations = numbered(max(places), f"{file}: location_remapped")
  every = ImageSet.of(
    Files(tuple(paths), view),
    labels,
    _names(root / "categories.csv", numbered(max(labels), f"{file}: y")),
    domains=places,
    domain_names=[f"location {n}" for n in locations],
  )
  of_row = np.array(splits)
  return {
    split: every.take(of_row == split) for split in SPLITS if split in splits
  }


def _names(file: pathlib.Path, numbers: Sequence[str]) -> tuple[str, ...]:
  """What the labels mean, as far as the archive says."""
  if not file.is_file():
    return tuple(numbers)
  with parsing(file), open(file, newline="", encoding="utf-8") as lines:
    rows = list(csv.DictReader(lines))
  if rows and not {"y", "name"} <= rows[0].keys():
    raise ValueError(f"{file} needs the columns y and name.")
  if rows and rows[-1]["name"] is None:
    raise ValueError(f"{file}: the last line has no name: is it complete?")
  # Species that no image shows have no label: y is empty or beyond the range.
  names = {row["y"]: row["name"] for row in rows}
  return tuple(names.get(label) or label for label in numbers)
