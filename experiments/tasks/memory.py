"""Images that are decoded once, if all of them fit into memory."""

import warnings

import numpy as np

from experiments.data.decode import View
from experiments.data.images import ImageSet, Pixels

LIMIT = 2 * 2**30
"""Bytes that the decoded images of a task may take, in each process."""


def fits(count: int, view: View) -> bool:
  """Whether so many images, of all sets of a task, fit into memory."""
  return count * view.size**2 * 3 <= LIMIT


def decoded_once(images: ImageSet) -> ImageSet:
  """The same images, in memory.

  Args:
    images: Of files; they fit.

  Raises:
    ValueError: If one is broken; it names the file.
  """
  pixels = images.in_memory().images
  return ImageSet(
    Pixels(pixels),
    np.arange(len(images)),
    images.labels,
    images.class_names,
    images.domains,
    images.domain_names,
    images.outputs,
    images.broken,
  )


def without_broken(images: ImageSet) -> ImageSet:
  """Those that can be decoded, with a warning that counts the others.

  Raises:
    ValueError: If a class or a domain has none that can be.
  """
  good = images.intact()
  if not good.broken:
    return images
  total = len(good) + len(good.broken)
  warnings.warn(
    f"left out {len(good.broken)} of {total} images; the first is"
    f" {good.broken[0].name}.",
    stacklevel=2,
  )
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
