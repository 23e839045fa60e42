"""A user's own images: a folder per class, and further ones that are OOD."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from experiments.data import folders
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet
from experiments.data.source import Source, hold_out
from experiments.reporting.records import Record
from experiments.tasks import fingerprint, memory
from experiments.tasks.image_task import Sets

LAYOUT = "<folder>/<class>/<image>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassFolders:
  """Folders of class folders. The names of the classes are what they share.

  Attributes:
    train: The images to train on.
    validation: ID validation images, to choose by; None holds out a share of
      `train`.
    ood: OOD images by name, as pairs; perhaps none.
    held_out: That share, of each class.
    skip_broken: Leave out images that cannot be decoded, with a warning.
    fit: See `View`.
  """

  train: pathlib.Path
  validation: pathlib.Path | None = None
  ood: tuple[tuple[str, pathlib.Path], ...] = ()
  held_out: float = 0.2
  skip_broken: bool = False
  fit: Literal["squeeze", "crop"] = "crop"

  def described(self, image_size: int, batch_size: int) -> Record:
    """See `Images`: names, and what tells these images from others."""
    data: dict[str, Any] = {"train": _told(self.train)}
    if self.validation is None:
      data["held_out"] = self.held_out
    else:
      data["validation"] = _told(self.validation)
    if self.ood:
      data["ood"] = {name: _told(path) for name, path in self.ood}
    if self.skip_broken:
      data["skip_broken"] = True
    return {"data": data, "image_size": image_size, "batch_size": batch_size}

  def open(self, view: View, seed: int) -> Sets:
    """See `Images`.

    Raises:
      FileNotFoundError: If a folder is not there, or has no images.
      ValueError: If classes differ between folders, or an image is broken.
    """
    names = tuple(_listed(self.train))
    if len(names) == 1:
      raise ValueError(
        f"{self.train} has one class, {names[0]!r}: expected {LAYOUT} with two"
        " classes at least."
      )
    others = dict(self.ood)
    if self.validation is not None:
      others[""] = self.validation
    # Before the images are decoded, which takes longer.
    for name, path in others.items():
      if path.resolve() == self.train.resolve():
        raise ValueError(
          f"{path} is what is trained on, and cannot be"
          f" {'OOD' if name else 'what is chosen by'}, too."
        )
      _same_classes(path, tuple(_listed(path)), self.train, names)
    count = sum(_count(path) for path in (self.train, *others.values()))
    read = functools.partial(
      _images,
      view=view,
      skip_broken=self.skip_broken,
      fits=memory.fits(count, view),
    )
    train = read(self.train)
    sets = {name: read(path) for name, path in others.items()}
    if self.validation is None:
      source = hold_out(train, fraction=self.held_out, seed=seed)
    else:
      source = Source(train, sets.pop(""))
    return Sets(source, sets, words=lambda: names)


def parse_ood(given: Sequence[str]) -> tuple[tuple[str, pathlib.Path], ...]:
  """OOD folders as a command line gives them.

  Raises:
    ValueError: If one is not NAME=DIR, or a name is given twice.

  Example:
    >>> parse_ood(["night=photos/night"])
    (('night', PosixPath('photos/night')),)
  """
  found: dict[str, pathlib.Path] = {}
  for one in given:
    name, equals, folder = one.partition("=")
    if not (name and equals and folder):
      raise ValueError(f"--ood must be NAME=DIR, got {one!r}.")
    if name in found:
      raise ValueError(
        f"--ood has {name!r} twice, with {found[name]} and {folder}: names must"
        " differ."
      )
    found[name] = pathlib.Path(folder)
  return tuple(found.items())


@functools.cache
def _listed(root: pathlib.Path) -> Mapping[str, list[pathlib.Path]]:
  return folders.classes(root, layout=LAYOUT)


@functools.lru_cache(maxsize=16)
def _images(
  root: pathlib.Path, view: View, skip_broken: bool, fits: bool
) -> ImageSet:
  found = _listed(root)
  paths = [str(file) for files in found.values() for file in files]
  labels = [label for label, files in enumerate(found.values()) for _ in files]
  images = ImageSet.of(
    Files(tuple(paths), view), labels, list(found), domain_names=(str(root),)
  )
  if skip_broken:
    images = memory.without_broken(images)
  return memory.decoded_once(images) if fits else images


def _count(root: pathlib.Path) -> int:
  return sum(len(files) for files in _listed(root).values())


def _told(root: pathlib.Path) -> Record:
  found = _listed(root)
  files = [file for files in found.values() for file in files]
  return {
    "folder": pathlib.Path(os.path.normpath(root.absolute())).name,
    "classes": len(found),
    "images": len(files),
    "digest": fingerprint.of_files(root, files),
  }


def _same_classes(
  root: pathlib.Path,
  found: tuple[str, ...],
  train: pathlib.Path,
  wanted: tuple[str, ...],
) -> None:
  missing = [name for name in wanted if name not in found]
  unknown = [name for name in found if name not in wanted]
  if not missing and not unknown:
    return
  sides = [
    f"{what} {', '.join(map(repr, names))}"
    for what, names in (("lacks", missing), ("has besides", unknown))
    if names
  ]
  raise ValueError(
    f"{root} must have the classes of {train}, by name, but it"
    f" {' and '.join(sides)}.\n  {train}: {', '.join(wanted)}\n  {root}:"
    f" {', '.join(found)}"
  )
