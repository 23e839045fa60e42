"""The images that a method may use: for training, and for validation."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from experiments.data.images import ImageSet
from experiments.data.split import Split


class Source(NamedTuple):
  """The images that a method may use, never OOD images.

  In memory, or on disk: `experiments.data.folds.Fold.source` is one.

  Attributes:
    train: Training images.
    validation: Images for every choice (C of the probe, early stopping).
  """

  train: Split | ImageSet
  validation: Split | ImageSet


def held_out(
  labels: Int[np.ndarray, " n"],
  class_names: Sequence[str],
  *,
  fraction: float,
  seed: int | Sequence[int],
  lone: Literal["error", "train"] = "error",
) -> Bool[np.ndarray, " n"]:
  """Marks a share of every class, drawn at random.

  Args:
    labels: Indices into ``class_names``.
    class_names: What they mean, for the error.
    fraction: Of each class to mark, in (0, 1); at least one image, and at least
      one stays unmarked.
    seed: The same seed marks the same images.
    lone: What becomes of the only image of a class.

  Returns:
    True where an image is held out.

  Raises:
    ValueError: On a fraction outside (0, 1), or on a class with a single image
      unless ``lone`` keeps it in training.
  """
  if not 0 < fraction < 1:
    raise ValueError(f"fraction must be in (0, 1), got {fraction}.")
  rng = np.random.default_rng(seed)
  held = np.zeros(len(labels), bool)
  for label, name in enumerate(class_names):
    members = rng.permutation(np.flatnonzero(labels == label))
    if len(members) == 1 and lone == "error":
      raise ValueError(
        f"class {name!r} has one image: nothing to hold out. Name images to"
        " choose by with --val, or add one."
      )
    count = min(max(1, round(fraction * len(members))), len(members) - 1)
    held[members[: max(count, 0)]] = True
  return held


def hold_out(images: Split | ImageSet, *, fraction: float, seed: int) -> Source:
  """Cuts images into training and validation images, class by class.

  DomainBed draws the 20 % from the whole domain; drawing them per class keeps
  the rare classes of small domains in both parts.

  Args:
    images: Those of the source domain, in memory or on disk.
    fraction: Of each class to hold out, in (0, 1); at least one image, and at
      least one image stays in training.
    seed: The same seed makes the same cut.

  Returns:
    The two parts; both keep the order of ``images``.

  Raises:
    ValueError: On a fraction outside (0, 1) or a class with a single image.
  """
  held = held_out(
    images.labels, images.class_names, fraction=fraction, seed=seed
  )
  return Source(
    images.take(np.flatnonzero(~held)), images.take(np.flatnonzero(held))
  )
