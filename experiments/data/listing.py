"""A user's labelled image files: a folder of class folders, or a CSV."""

import csv
import dataclasses
import functools
import os
import pathlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping

from experiments.data import folders

LAYOUT = "<folder>/<class>/<image>"

COLUMNS = ("file", "label")
"""Of a CSV."""


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
  """Image files and what they show.

  Attributes:
    root: The folder or the CSV that was named.
    files: The images, class by class, then by name.
    labels: The name of the class of each.
    left_out: How many files were passed over, by reason.
  """

  root: pathlib.Path
  files: tuple[pathlib.Path, ...]
  labels: tuple[str, ...]
  left_out: Mapping[str, int]

  @functools.cached_property
  def classes(self) -> tuple[str, ...]:
    """The names of the classes in order."""
    return tuple(sorted(set(self.labels)))

  @functools.cached_property
  def places(self) -> frozenset[str]:
    """The files with links resolved, to find files that are in two sets."""
    real = functools.cache(os.path.realpath)
    return frozenset(
      real(file)
      if file.is_symlink()
      else os.path.join(real(file.parent), file.name)
      for file in self.files
    )

  def notes(self) -> tuple[str, ...]:
    """A sentence on what was left out, if anything was."""
    return folders.notes(self.root, self.left_out)


def read(path: pathlib.Path, *, skip_missing: bool = False) -> Listing:
  """Lists images; none is opened.

  Args:
    path: A folder of class folders, or a CSV with the columns file and label.
    skip_missing: Leave out what a CSV names and is not there.

  Raises:
    FileNotFoundError: If there is nothing at the path, or no image.
    ValueError: If a CSV is damaged, or names a file twice or in vain; the line
      is named.
  """
  if path.is_dir():
    return _of_folders(path)
  if path.is_file():
    return _of_csv(path, skip_missing)
  raise FileNotFoundError(
    f"no folder {path}: expected {LAYOUT}, or a CSV with the columns"
    f" {','.join(COLUMNS)}."
  )


def same_name(text: str) -> str:
  """A name normalised for comparison: accents are composed."""
  return unicodedata.normalize("NFC", text)


def _of_folders(root: pathlib.Path) -> Listing:
  left_out: folders.LeftOut = Counter()
  beside: folders.LeftOut = Counter()
  found: dict[str, list[pathlib.Path]] = {}
  for folder in folders.subfolders(root, beside):
    every, others = below(folder)
    images = [file for file in every if file.parent == folder]
    left_out += others
    if deep := len(every) - len(images):
      left_out["images in folders below a class folder"] += deep
    if not images:
      left_out["class folders without an image"] += 1
      continue
    if (name := same_name(folder.name)) in found:
      raise ValueError(
        f"{root} has two folders called {name!r}, which differ in how an accent"
        " is written: put their images into one."
      )
    found[name] = images
  if not found:
    hint = _hint(root, beside["images beside the class folders"])
    raise FileNotFoundError(f"no images in {root}: expected {LAYOUT}.{hint}")
  ordered = sorted(found.items())
  return Listing(
    root,
    tuple(file for _, files in ordered for file in files),
    tuple(name for name, files in ordered for _ in files),
    left_out + beside,
  )


def below(
  folder: pathlib.Path,
) -> tuple[list[pathlib.Path], Counter[str]]:
  """The images in a folder and below it, by their path.

  Links to folders are followed, each folder once.

  Returns:
    The images, and how many other files there are, by reason.
  """
  found: list[pathlib.Path] = []
  left_out: Counter[str] = Counter()
  seen: set[str] = set()
  for above, inner, names in os.walk(folder, followlinks=True):
    if (place := os.path.realpath(above)) in seen:
      inner.clear()
      continue
    seen.add(place)
    inner[:] = sorted(name for name in inner if not name.startswith("."))
    for name in names:
      file = pathlib.Path(above, name)
      if folders.is_image(name, file.is_file(), left_out):
        found.append(file)
  return sorted(found), left_out


def _hint(root: pathlib.Path, beside: int) -> str:
  """What may be meant by a folder without class folders."""
  if beside:
    return (
      f" It holds {beside} images itself: put those of each class into a folder"
      f" that is called like it, or list them in a CSV with the columns"
      f" {','.join(COLUMNS)}."
    )
  inside = folders.subfolders(root)
  for inner in sorted(inside, key=lambda folder: "train" not in folder.name):
    if any(folders.image_files(f) for f in folders.subfolders(inner)):
      return f" Its folder {inner.name} looks so: did you mean {inner}?"
  return ""


def _of_csv(path: pathlib.Path, skip_missing: bool) -> Listing:
  lines: dict[str, int] = {}
  rows: list[tuple[str, pathlib.Path]] = []
  left_out: Counter[str] = Counter()
  for number, name, label in _rows(path):
    file = path.parent / name
    place = os.path.realpath(file)
    if place in lines:
      raise ValueError(
        f"{path}:{number}: {name!r} stands in line {lines[place]}, too."
      )
    lines[place] = number
    if file.is_file():
      rows.append((same_name(label), file))
    elif skip_missing:
      left_out["rows whose file is not there"] += 1
    else:
      raise FileNotFoundError(
        f"{path}:{number}: there is no file {file}; paths are relative to the"
        " folder of the CSV."
      )
  if not rows:
    raise FileNotFoundError(f"{path} names no image that is there.")
  rows.sort(key=lambda row: (row[0], str(row[1])))
  return Listing(
    path,
    tuple(file for _, file in rows),
    tuple(label for label, _ in rows),
    left_out,
  )


def _rows(path: pathlib.Path) -> Iterator[tuple[int, str, str]]:
  """Line, file and label of each row."""
  with open(path, newline="", encoding="utf-8-sig") as text:
    reader = csv.DictReader(text, skipinitialspace=True, strict=True)
    try:
      header = [name.strip() for name in reader.fieldnames or ()]
      if len(set(header)) != len(header) or not set(COLUMNS) <= set(header):
        raise ValueError(
          f"the first line must name the columns {','.join(COLUMNS)}, with"
          f" commas between them, got {','.join(header)!r}."
        )
      reader.fieldnames = header
      for row in reader:
        if None in row or None in row.values():
          raise ValueError(
            f"expected {len(header)} values, got"
            f" {[*filter(None, row.values())]}."
          )
        name, label = (row[column].strip() for column in COLUMNS)
        if not name or not label or "\0" in name + label:
          raise ValueError(
            f"expected a file and a label, got {name!r} and {label!r}."
          )
        yield reader.line_num, name, label
    except UnicodeDecodeError as error:
      raise ValueError(f"{path} is not in UTF-8: {error}.") from None
    except (ValueError, csv.Error) as error:
      # It raises its own errors before it counts the line.
      number = max(reader.line_num + isinstance(error, csv.Error), 1)
      raise ValueError(f"{path}:{number}: {error}") from None
