"""Labelled images in memory.

They stay uint8 until they are on the device: a quarter of the bytes to copy,
and the model that knows its own mean and deviation does the arithmetic.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from experiments.data.augmentation import Policy


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Images of one origin with their labels.

  Attributes:
    images: The decoded images.
    labels: Indices into ``class_names``.
    class_names: What the labels mean.
  """

  images: UInt8[np.ndarray, "n height width 3"]
  labels: Int[np.ndarray, " n"]
  class_names: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {"image": self.images[index], "label": self.labels[index]}

  def drawn(
    self, index: int, policy: Policy, rng: np.random.Generator
  ) -> dict[str, Any]:
    """An image as training sees it: augmented, and of the same size."""
    image = self.images[index]
    pixels = policy.drawn(image, image.shape[:2], rng)
    return {"image": pixels, "label": self.labels[index]}

  def take(self, indices: np.ndarray) -> "Split":
    """The split of these images, in this order."""
    return Split(self.images[indices], self.labels[indices], self.class_names)
