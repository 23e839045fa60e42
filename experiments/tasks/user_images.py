"""A user's own images: class folders or CSVs, and further ones that are OOD."""

import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.data import listing
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet
from experiments.data.listing import Listing
from experiments.data.source import Source, hold_out
from experiments.reporting.records import Record
from experiments.tasks import fingerprint, memory
from experiments.tasks.image_task import Sets
from gmixout_jax.checkpoint.files import local_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserImages:
  """Class folders or CSVs, with the same class names in all of them.

  The backbone's files say how an image is resized and cropped.

  Attributes:
    train: The images to train on; see `experiments.data.listing.read`.
    validation: ID validation images, to choose by; None holds out a fraction
      of `train`.
    ood: OOD images by name, as pairs; perhaps none.
    held_out: That fraction, of each class.
    skip_broken: Leave out images that cannot be decoded.
  """

  train: pathlib.Path
  validation: pathlib.Path | None = None
  ood: tuple[tuple[str, pathlib.Path], ...] = ()
  held_out: float = 0.2
  skip_broken: bool = False

  @property
  def view(self) -> None:
    """See `Images`: the backbone's."""
    return None

  def described(self, image_size: int, batch_size: int) -> Record:
    """See `Images`: names, and what tells these images from others."""
    skip = self.skip_broken
    data: dict[str, Any] = {"train": described(_listed(self.train, skip))}
    if self.validation is None:
      data["held_out"] = self.held_out
    else:
      data["validation"] = described(_listed(self.validation, skip))
    if self.ood:
      data["ood"] = {n: described(_listed(path, skip)) for n, path in self.ood}
    if self.skip_broken:
      data["skip_broken"] = True
    return {"data": data, "image_size": image_size, "batch_size": batch_size}

  def open(self, view: View, seed: int) -> Sets:
    """See `Images`.

    Raises:
      FileNotFoundError: If a folder is not there, or has no images.
      ValueError: If classes differ between sets, an image is in two of them, or
        one is broken.
    """
    names = {"--train": self.train}
    if self.validation is not None:
      names["--val"] = self.validation
    names |= {f"--ood {name}": path for name, path in self.ood}
    sets = {flag: _listed(path, self.skip_broken)
            for flag, path in names.items()}  # fmt: skip
    # Before the images are decoded, which takes longer.
    classes = check(sets)
    fits = memory.fits(sum(len(one.files) for one in sets.values()), view)
    opened = {
      flag: _images(path, view, self.skip_broken, fits)
      for flag, path in names.items()
    }
    train = opened.pop("--train")
    if self.validation is None:
      source = hold_out(train, fraction=self.held_out, seed=seed)
    else:
      source = Source(train, opened["--val"])
    notes = [
      note for one in (train, *opened.values()) for note in memory.notes(one)
    ]
    return Sets(
      source,
      {name: opened[f"--ood {name}"] for name, _ in self.ood},
      words=lambda: classes,
      notes=tuple(notes),
    )


def check(sets: Mapping[str, Listing]) -> tuple[str, ...]:
  """Whether sets go together; returns their classes.

  Args:
    sets: By flag; the first is what is trained on.

  Raises:
    ValueError: If classes differ, there is but one, or two sets share images.
  """
  train, *others = sets.values()
  if len(train.classes) == 1:
    raise ValueError(
      f"{train.root} has one class, {train.classes[0]!r}: expected"
      f" {listing.LAYOUT} with two classes at least. If the folder is of one"
      " class itself, name the one above it."
    )
  check_apart(sets)
  for other in others:
    same_classes(other.root, other.classes, train.root, train.classes)
  return train.classes


def check_apart(sets: Mapping[str, Listing]) -> None:
  """Whether no image is in two sets, by flag.

  Raises:
    ValueError: If one is.
  """
  for (here, one), (there, other) in itertools.combinations(sets.items(), 2):
    if shared := one.places & other.places:
      hint = ""
      if here == "--val":
        hint = " Accuracy on --val is reported anyway: leave it out of --ood."
      raise ValueError(
        f"{there} ({other.root}) and {here} ({one.root}) share {len(shared)}"
        f" images, such as {min(shared)}: what is trained on, chosen by and OOD"
        f" must be different images.{hint}"
      )


def parse_ood(given: Sequence[str]) -> tuple[tuple[str, pathlib.Path], ...]:
  """OOD images as a command line gives them.

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
    found[name] = local_path("--ood", folder)
  return tuple(found.items())


@functools.cache
def _listed(path: pathlib.Path, skip_missing: bool) -> Listing:
  return listing.read(path, skip_missing=skip_missing)


@functools.lru_cache(maxsize=16)
def _images(
  path: pathlib.Path, view: View, skip_broken: bool, fits: bool
) -> ImageSet:
  images = labelled(_listed(path, skip_broken), view)
  if skip_broken:
    images = memory.without_broken(images)
  return memory.decoded_once(images) if fits else images


def labelled(
  found: Listing, view: View, classes: Sequence[str] | None = None
) -> ImageSet:
  """The images of a listing.

  Args:
    found: The listing.
    view: What to see of each.
    classes: What labels count, with all of its classes; by default those.
  """
  classes = found.classes if classes is None else classes
  numbers = {name: label for label, name in enumerate(classes)}
  return ImageSet.of(
    Files(tuple(map(str, found.files)), view),
    [numbers[name] for name in found.labels],
    classes,
    domain_names=(str(found.root),),
    left_out=found.notes(),
  )


def described(found: Listing) -> Record:
  """What a line says of a set: its name, its counts and a digest."""
  path = found.root
  is_folder = path.is_dir()
  name = pathlib.Path(os.path.normpath(path.absolute())).name
  return {
    "folder" if is_folder else "csv": name,
    "classes": len(found.classes),
    "images": len(found.files),
    "digest": fingerprint.of_files(
      path if is_folder else path.parent,
      found.files,
      labels=() if is_folder else found.labels,
    ),
  }


def same_classes(
  root: pathlib.Path,
  found: Sequence[str],
  other: pathlib.Path,
  wanted: Sequence[str],
) -> None:
  """Whether two sets have the same classes, by name.

  Args:
    root: Where the ones come from.
    found: Those.
    other: Where those come from that they must be.
    wanted: Those.

  Raises:
    ValueError: If not; it lists both.
  """
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
    f"{root} must have the classes of {other}, by name, but it"
    f" {' and '.join(sides)}.\n  {other}: {', '.join(wanted)}\n  {root}:"
    f" {', '.join(found)}"
  )
