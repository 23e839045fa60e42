"""Images that are decoded once, if all of them fit into memory.

As evaluation sees them. Crops of the originals are decoded when training draws
them, from files that the system keeps in memory if it can.
"""

import dataclasses
import re
from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import UInt8

from experiments.data.decode import Content, View
from experiments.data.images import ImageSet, Loader

_PARTICULARS = re.compile(r"\[Errno \d+\] |\s*['\"<].*?['\">]|\d+")
"""Of a reason: names, and numbers of bytes."""

LIMIT = 2 * 2**30
"""Bytes that the decoded images of a task may take, in each process."""


def fits(count: int, view: View) -> bool:
  """Whether so many images, of all sets of a task, fit into memory."""
  return count * view.size**2 * 3 <= LIMIT


@dataclasses.dataclass(frozen=True)
class Decoded:
  """What evaluation sees of images, in memory; their originals are not.

  Attributes:
    of: Where the images come from.
    pixels: Of the rows in order.
  """

  of: Loader
  pixels: UInt8[np.ndarray, "n height width 3"]

  @property
  def view(self) -> View | None:
    """That of the images."""
    return self.of.view

  def read(self, row: int) -> Content:
    """The original, of which training draws crops."""
    return self.of.read(row)

  def load(self, row: int) -> np.ndarray:
    """The pixels of its view."""
    return self.pixels[row]

  def name(self, row: int) -> str:
    """What to call the image in a message."""
    return self.of.name(row)

  def __reduce__(self) -> tuple[Any, ...]:
    # To processes that decode no pixels are sent: they read the files.
    return _itself, (self.of,)


def _itself(loader: Loader) -> Loader:
  return loader


def decoded_once(images: ImageSet) -> ImageSet:
  """The same images, with what evaluation sees of them in memory.

  Args:
    images: Of files; they fit.

  Raises:
    ValueError: If one is broken; it names the file.
  """
  pixels = images.in_memory().images
  # Rows count in the loader, of which the set may use a part.
  whole = np.empty((images.rows.max() + 1, *pixels.shape[1:]), np.uint8)
  whole[images.rows] = pixels
  return dataclasses.replace(images, loader=Decoded(images.loader, whole))


def without_broken(images: ImageSet) -> ImageSet:
  """Those that can be decoded; the others are counted, see `notes`.

  Raises:
    ValueError: If a class or a domain has none that can be.
  """
  good = images.intact()
  if not good.broken:
    return images
  before, after = images.counts(), good.counts()
  if (lost := np.argwhere((before > 0) & (after == 0))).size:
    domain, label = lost[0]
    where = images.domain_names[domain]
    raise ValueError(
      f"class {images.class_names[label]!r} of {where!r} has no image that can"
      f" be decoded: of {before[domain, label]}, the first is"
      f" {good.broken[0].name}."
    )
  return good


def notes(images: ImageSet) -> tuple[str, ...]:
  """A sentence on the images that could not be decoded, if there are any.

  They are counted by reason, whatever names and numbers that mentions.
  """
  if not images.broken:
    return ()
  reasons = Counter(
    re.sub(_PARTICULARS, "", why.partition(": ")[2] or why)
    for _, why in images.broken
  )
  total = len(images) + len(images.broken)
  counted = "; ".join(f"{n}: {why.strip(' .')}" for why, n in reasons.items())
  where = ", ".join(images.domain_names[:3])
  return (
    f"Left out {len(images.broken)} of {total} images of {where} that cannot be"
    f" decoded ({counted}); the first is {images.broken[0].name}.",
  )
