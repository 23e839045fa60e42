"""ImageNet-LT: lists of images of a long-tailed part of ImageNet.

A list (ImageNet_LT_train.txt, _val, _test) has a line per image, a path
relative to ImageNet's folder and a label:

  train/n01440764/n01440764_190.JPEG 0

Validation images are looked for as written, and then in class folders below,
because most copies of ImageNet have been sorted since the lists were made.

References:
  Liu et al., 2019, https://arxiv.org/abs/1904.05160.
"""

import os
import pathlib
from collections.abc import Sequence

from experiments.data import folders, imagenet
from experiments.data.damage import inside, numbered, parsing
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet


def open_list(
  file: str | os.PathLike[str],
  *,
  root: str | os.PathLike[str],
  class_names: Sequence[str] | None = None,
  view: View = imagenet.VIEW,
) -> ImageSet:
  """The images of a list.

  Args:
    file: The list.
    root: The folder that its paths start from.
    class_names: What the labels mean; their numbers if None. They are then as
      many as the highest label of this list says, so give the names where a
      list may lack the last class.
    view: What to see of every image.

  Returns:
    The images, in the order of the list.

  Raises:
    FileNotFoundError: If the list or an image is missing.
    ValueError: On a line that is not a path and a label; it names the line.
  """
  file, root = pathlib.Path(file), pathlib.Path(root)
  if not file.is_file():
    raise FileNotFoundError(f"no {file}: expected lines '<path> <label>'.")
  paths, labels = [], []
  sorted_copies: dict[str, dict[str, str]] = {}
  with parsing(file):
    lines = file.read_text(encoding="utf-8").splitlines()
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    relative, _, label = line.strip().rpartition(" ")
    if not relative or not label.isdecimal() or len(label) > 9:
      raise ValueError(f"{file}:{number}: {line!r} is not '<path> <label>'.")
    paths.append(_resolve(root, relative, sorted_copies, f"{file}:{number}"))
    labels.append(int(label))
  if not labels:
    raise ValueError(f"{file} has no lines '<path> <label>'.")
  names = class_names or numbered(max(labels), f"{file}: labels")
  return ImageSet.of(Files(tuple(paths), view), labels, names)


def _resolve(
  root: pathlib.Path,
  relative: str,
  sorted_copies: dict[str, dict[str, str]],
  where: str,
) -> str:
  """The file that a line of the list means."""
  path = inside(root, relative, where)
  if path.is_file():
    return str(path)
  parent = str(path.parent)
  if parent not in sorted_copies:  # listing 1,000 folders once is enough
    sorted_copies[parent] = {
      image.name: str(image)
      for folder in (
        folders.subfolders(path.parent) if path.parent.is_dir() else ()
      )
      for image in folders.image_files(folder)
    }
  if path.name in sorted_copies[parent]:
    return sorted_copies[parent][path.name]
  raise FileNotFoundError(
    f"{where}: no image {path}, nor one of that name in a folder beside it."
  )
