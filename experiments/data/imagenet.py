"""ImageNet and its relatives as folder trees.

A class is a WordNet id ("n01440764"), and output c of a head is the c-th id in
sorted order, as torchvision, timm and TFDS have it. This file holds no list of
ids: those of the head are read from your training folder, or from a file, by
`head_classes`.

  train, val, Sketch   <root>/<id>/<image>           1,000 classes
  val, as Kaggle ships <root>/<image> and LOC_val_solution.csv
  A, R                 <root>/<id>/<image>           200 classes each
  V2                   <root>/<number>/<image>       1,000 classes

Folders of V2 are numbered, and sorting their names as strings puts "10" before
"2": the number is the label here, whatever the order.
"""

import csv
import os
import pathlib
import re
from collections import Counter
from collections.abc import Sequence

from experiments.data import folders
from experiments.data.damage import parsing
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet

VIEW = View(224, fit="crop", zoom=256 / 224)
"""Resize the shorter side to 256, take the central 224."""

_ID = re.compile(r"n\d{8}")


def head_classes(source: str | os.PathLike[str]) -> tuple[str, ...]:
  """The WordNet ids of a head's outputs, in order.

  Args:
    source: A folder of class folders, such as ImageNet's train; or a text file
      with an id at the start of every line, such as LOC_synset_mapping.txt.
      Of a folder, hidden folders and files do not count, and folders without
      an image do. The ids are sorted, whatever the order of the lines: no
      head is trained in that of the development kit (ILSVRC2012_ID).

  Raises:
    FileNotFoundError: If there is neither.
    ValueError: If a folder or line is no WordNet id, or an id comes twice; it
      names the file.
  """
  source = pathlib.Path(source)
  if source.is_dir():
    ids = [folder.name for folder in folders.subfolders(source)]
  elif source.is_file():
    with parsing(source):
      lines = source.read_text(encoding="utf-8").splitlines()
    ids = [line.split()[0] for line in lines if line.strip()]
  else:
    raise FileNotFoundError(
      f"no {source}: expected a folder of class folders, or a text file with a"
      " WordNet id at the start of every line."
    )
  for name in ids:
    if not _ID.fullmatch(name):
      raise ValueError(
        f"{source} has {name!r} where a WordNet id such as 'n01440764' was"
        " expected."
      )
  if len(set(ids)) != len(ids):
    raise ValueError(f"{source} names a WordNet id twice.")
  return tuple(sorted(ids))


def words(file: str | os.PathLike[str], head: Sequence[str]) -> tuple[str, ...]:
  """What a head's classes are called in English, for prompts.

  Args:
    file: LOC_synset_mapping.txt, or any with lines "<WordNet id> <names>". Of
      several names with commas between the first is taken.
    head: From `head_classes`.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it lacks an id of the head.
  """
  file = pathlib.Path(file)
  if not file.is_file():
    raise FileNotFoundError(
      f"no {file}: expected lines '<WordNet id> <names>', for prompts."
    )
  with parsing(file):
    lines = file.read_text(encoding="utf-8").splitlines()
  split = (line.split(maxsplit=1) for line in lines)
  named = {part[0]: part[1] for part in split if len(part) == 2}
  if lacking := [name for name in head if name not in named]:
    raise ValueError(f"{file} has no names for {', '.join(lacking[:3])}.")
  return tuple(named[name].split(",")[0].strip() for name in head)


def tree(
  root: str | os.PathLike[str],
  *,
  head: Sequence[str] | None = None,
  view: View = VIEW,
) -> ImageSet:
  """A folder of folders named by WordNet ids: train, val, Sketch, A or R.

  Args:
    root: The folder of class folders.
    head: What the head's outputs mean, from `head_classes`. A set with
      fewer classes, as A and R, then carries which outputs they are. None says
      that the folders are the head's classes.
    view: What to see of every image.

  Returns:
    The images; classes are the sorted ids of the folders that have any.

  Raises:
    FileNotFoundError: If the folder or its images are missing.
    ValueError: If a folder's name is no id, or the head lacks it.
  """
  left_out: folders.LeftOut = Counter()
  found = folders.classes(root, left_out, layout="<root>/<WordNet id>/<image>")
  for name in found:
    if not _ID.fullmatch(name):
      raise ValueError(
        f"{pathlib.Path(root) / name} is not named by a WordNet id such as"
        " 'n01440764': expected <root>/<WordNet id>/<image>."
      )
  paths = [str(file) for files in found.values() for file in files]
  labels = [c for c, files in enumerate(found.values()) for _ in files]
  return ImageSet.of(
    Files(tuple(paths), view),
    labels,
    tuple(found),
    outputs=_outputs(root, tuple(found), head),
    left_out=folders.notes(root, left_out),
  )


def validation(
  root: str | os.PathLike[str],
  solution: str | os.PathLike[str],
  *,
  head: Sequence[str],
  view: View = VIEW,
) -> ImageSet:
  """The validation images in one folder, as Kaggle ships them.

  Args:
    root: The folder with the images.
    solution: LOC_val_solution.csv: columns ImageId and PredictionString, which
      begins with the WordNet id.
    head: From `head_classes`.
    view: What to see of every image.

  Raises:
    FileNotFoundError: If an image that the solution names is missing.
    ValueError: If the head lacks an id, or the file is not of that form.
  """
  root, labels, paths = pathlib.Path(root), [], []
  index = {name: c for c, name in enumerate(head)}
  left_out: folders.LeftOut = Counter()
  here = {file.stem: file for file in folders.image_files(root, left_out)}
  with (
    parsing(solution),
    open(solution, newline="", encoding="utf-8") as lines,
  ):
    for row in csv.DictReader(lines):
      stem, answer = row.get("ImageId"), row.get("PredictionString")
      if not stem or not answer or not answer.strip():
        raise ValueError(
          f"{solution} needs the columns ImageId and PredictionString, has"
          f" {', '.join(map(str, row))}."
        )
      if (name := answer.split()[0]) not in index:
        raise ValueError(f"{solution} has class {name!r}, which head lacks.")
      if stem not in here:
        raise FileNotFoundError(f"no image {stem} in {root}: {solution} has.")
      labels.append(index[name])
      paths.append(str(here[stem]))
  if unnamed := len(here) - len(set(paths)):
    left_out["images that the solution does not name"] += unnamed
  return ImageSet.of(
    Files(tuple(paths), view),
    labels,
    head,
    left_out=folders.notes(root, left_out),
  )


def v2(
  root: str | os.PathLike[str],
  *,
  head: Sequence[str] | None = None,
  view: View = VIEW,
) -> ImageSet:
  """ImageNet-V2: folders named by the number of the head's output.

  Args:
    root: Such as imagenetv2-matched-frequency-format-val.
    head: From `head_classes`, for the names; the numbers if None.
    view: What to see of every image.

  Raises:
    FileNotFoundError: If the folder or its images are missing.
    ValueError: If a folder's name is not a number below the count of classes.
  """
  left_out: folders.LeftOut = Counter()
  found = folders.classes(root, left_out, layout="<root>/<number>/<image>")
  for name in found:
    if not name.isdecimal() or str(int(name)) != name:
      raise ValueError(
        f"{pathlib.Path(root) / name} is not named by a number: expected"
        " <root>/<number>/<image>."
      )
  count = max(map(int, found)) + 1
  if head is not None and count > len(head):
    raise ValueError(f"{root} has class {count - 1}; head has {len(head)}.")
  numbers = range(len(head) if head is not None else count)
  by_number = sorted(found.items(), key=lambda item: int(item[0]))
  return ImageSet.of(
    Files(tuple(str(f) for _, files in by_number for f in files), view),
    [int(name) for name, files in by_number for _ in files],
    tuple(head) if head is not None else tuple(map(str, numbers)),
    left_out=folders.notes(root, left_out),
  )


def _outputs(
  root: str | os.PathLike[str],
  classes: tuple[str, ...],
  head: Sequence[str] | None,
) -> tuple[tuple[int, ...], ...] | None:
  """Which output of the head each class is; None if they are the same."""
  if head is None or tuple(head) == classes:
    return None
  index = {name: c for c, name in enumerate(head)}
  if unknown := [name for name in classes if name not in index]:
    raise ValueError(
      f"{root} has the classes {', '.join(unknown[:3])}, which are not among"
      f" the {len(head)} of the head."
    )
  return tuple((index[name],) for name in classes)
