"""Folders of class folders: ``root/<class>/<image>``.

What is passed over is counted by reason; `notes` reports it.
"""

import os
import pathlib
from collections import Counter
from collections.abc import Mapping

from experiments.data.decode import EXTENSIONS

LeftOut = Counter[str]
"""How many names were passed over, by reason."""


def is_image(name: str, is_file: bool, left_out: LeftOut) -> bool:
  """Whether a name in a folder is that of an image; else it is counted.

  Args:
    name: Of anything but a folder.
    is_file: Whether it is a regular file: a pipe would be waited for.
    left_out: What is added to.

  Example:
    >>> is_image("a.JPG", True, found := Counter()), dict(found)
    (True, {})
    >>> is_image("a.txt", True, found), dict(found)
    (False, {'files named .txt': 1})
  """
  suffix = os.path.splitext(name)[1].lower()
  if name.startswith("."):
    if suffix in EXTENSIONS:  # nobody misses others
      left_out["hidden files"] += 1
  elif not is_file:
    left_out["names that are no regular file"] += 1
  elif suffix not in EXTENSIONS:
    why = f"files named {suffix}" if suffix else "files without a suffix"
    left_out[why] += 1
  else:
    return True
  return False


def subfolders(
  path: pathlib.Path, left_out: LeftOut | None = None
) -> list[pathlib.Path]:
  """The visible folders in a folder, by name as strings.

  Args:
    path: The folder.
    left_out: Where images beside them are counted, and names that are neither
      folders nor files, such as links to what is not there.
  """
  found, beside = [], Counter()
  with os.scandir(path) as entries:
    for entry in entries:
      if entry.is_dir():
        if not entry.name.startswith("."):
          found.append(path / entry.name)
      elif is_image(entry.name, entry.is_file(), beside):
        beside["images beside the class folders"] += 1
  if left_out is not None:
    # Others, such as a README, belong there.
    reasons = (
      "images beside the class folders",
      "names that are no regular file",
    )
    left_out.update({why: beside[why] for why in reasons if beside[why]})
  return sorted(found)


def image_files(
  path: pathlib.Path, left_out: LeftOut | None = None
) -> list[pathlib.Path]:
  """The images directly in a folder, by name as strings.

  Args:
    path: The folder.
    left_out: Where all else is counted.
  """
  found, others = [], Counter() if left_out is None else left_out
  with os.scandir(path) as entries:
    for entry in entries:
      if entry.is_dir():
        if not entry.name.startswith("."):
          others["folders among the images"] += 1
      elif is_image(entry.name, entry.is_file(), others):
        found.append(path / entry.name)
  return sorted(found)


def by_class(
  root: pathlib.Path, left_out: LeftOut
) -> dict[str, list[pathlib.Path]]:
  """The images of every class folder that has any, both sorted by name.

  Args:
    root: The folder that holds one folder per class.
    left_out: Where what is passed over is counted, classes among it.
  """
  found = {
    folder.name: image_files(folder, left_out)
    for folder in subfolders(root, left_out)
  }
  if empty := sum(not files for files in found.values()):
    left_out["class folders without an image"] += empty
  return {name: files for name, files in found.items() if files}


def classes(
  root: str | os.PathLike[str],
  left_out: LeftOut,
  *,
  layout: str = "<root>/<class>/<image>",
) -> dict[str, list[pathlib.Path]]:
  """Lists the images of every class folder that has any.

  Args:
    root: The folder that holds one folder per class.
    left_out: Where what is passed over is counted.
    layout: What to say was expected.

  Returns:
    class -> files, both sorted by name.

  Raises:
    FileNotFoundError: If there is no such folder, or no image in it.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise FileNotFoundError(f"no folder {root}: expected {layout}.")
  found = by_class(root, left_out)
  if not found:
    raise FileNotFoundError(f"no images in {root}: expected {layout}.")
  return found


def notes(
  root: str | os.PathLike[str], left_out: Mapping[str, int]
) -> tuple[str, ...]:
  """A sentence on what was left out of a folder, if anything was.

  Example:
    >>> notes("photos", {"hidden files": 2})
    ('Left out of photos: 2 hidden files.',)
  """
  if not left_out:
    return ()
  reasons = ", ".join(f"{n} {why}" for why, n in left_out.items())
  return (f"Left out of {root}: {reasons}.",)
