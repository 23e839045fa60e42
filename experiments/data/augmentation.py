"""Augmentations of training images, by name.

"none" is the preprocessing of evaluation; all others are a crop of the
original, flipped half of the time. "basic" crops 70 to 100 % of the image, as
in DomainBed, whose colour jitter and random greyscale are left out: they would
hide the shift in texture and colour that is studied. "inception" crops 8 to
100 %, as is usual on ImageNet, and "randaugment" adds two operations of
RandAugment to that.
"""

import dataclasses
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

from experiments.data import crops, randaugment
from experiments.data.decode import Content

Augmentation = Literal["none", "basic", "inception", "randaugment"]


@dataclasses.dataclass(frozen=True)
class Policy:
  """An augmentation.

  Attributes:
    areas: The smallest and the largest fraction of the image's area in a crop.
    flips: The fraction of the crops that are mirrored.
    operations: How many operations of RandAugment follow.
    strength: Theirs, of 30.
  """

  areas: tuple[float, float]
  flips: float = 0.5
  operations: int = 0
  strength: float = 9

  def drawn(
    self,
    content: Content,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    border: int = 0,
    name: str = "",
  ) -> UInt8[np.ndarray, "height width 3"]:
    """An image, augmented; arguments and errors as of `crops.cut_out`."""
    pixels = crops.cut_out(
      content, size, self.areas, rng, border=border, name=name
    )
    if rng.random() < self.flips:
      pixels = np.asarray(cv2.flip(pixels, 1))  # ten times as fast as [:, ::-1]
    if self.operations:
      pixels = randaugment.apply(
        pixels, rng, count=self.operations, strength=self.strength
      )
    return pixels


POLICIES: dict[str, Policy] = {
  "basic": Policy((0.7, 1.0)),
  "inception": Policy((0.08, 1.0)),
  "randaugment": Policy((0.08, 1.0), operations=2),
}
"""All but "none"."""
