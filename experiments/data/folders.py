"""Folders of class folders: ``root/<class>/<image>``."""

import os
import pathlib

from experiments.data.decode import EXTENSIONS


def subfolders(path: pathlib.Path) -> list[pathlib.Path]:
  """The visible folders in a folder, by name as strings."""
  with os.scandir(path) as entries:
    return sorted(
      path / entry.name
      for entry in entries
      if entry.is_dir() and not entry.name.startswith(".")
    )


def image_files(path: pathlib.Path) -> list[pathlib.Path]:
  """The images directly in a folder, by name as strings."""
  with os.scandir(path) as entries:
    return sorted(
      path / entry.name
      for entry in entries
      if os.path.splitext(entry.name)[1].lower() in EXTENSIONS
      and not entry.name.startswith(".")
      and entry.is_file()  # a pipe would be waited for
    )


def classes(
  root: str | os.PathLike[str], *, layout: str = "<root>/<class>/<image>"
) -> dict[str, list[pathlib.Path]]:
  """Lists the images of every class folder that has any.

  Args:
    root: The folder that holds one folder per class.
    layout: What to say was expected.

  Returns:
    class -> files, both sorted by name.

  Raises:
    FileNotFoundError: If there is no such folder, or no image in it.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise FileNotFoundError(f"no folder {root}: expected {layout}.")
  found = {
    folder.name: files
    for folder in subfolders(root)
    if (files := image_files(folder))
  }
  if not found:
    raise FileNotFoundError(f"no images in {root}: expected {layout}.")
  return found
