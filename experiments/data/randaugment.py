"""RandAugment: operations drawn at random, all of one strength.

Cubuk and others, RandAugment: Practical automated data augmentation with a
reduced search space (2019, https://arxiv.org/abs/1909.13719). Operations and
ranges are those of torchvision's `RandAugment`, whose strengths are m of 30.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

LARGEST = 30
"""Of the strengths, the largest."""

_Operation = Callable[[Image.Image, float], Image.Image]


@dataclasses.dataclass(frozen=True)
class Kind:
  """An operation.

  Attributes:
    apply: From an image and a value to an image of the same size.
    most: The value at the largest strength.
    least: That at strength 0.
    signed: Whether the value's sign is drawn, too.
  """

  apply: _Operation
  most: float = 0.0
  least: float = 0.0
  signed: bool = False

  def value(self, strength: float) -> float:
    """That of a strength in [0, 30], without a sign."""
    return self.least + (self.most - self.least) * strength / LARGEST


def apply(
  image: UInt8[np.ndarray, "height width 3"],
  rng: np.random.Generator,
  *,
  count: int = 2,
  strength: float = 9,
) -> UInt8[np.ndarray, "height width 3"]:
  """Applies operations drawn at random, with replacement.

  Args:
    image: Pixels.
    rng: What draws.
    count: How many (the paper's N).
    strength: In [0, 30] (the paper's M).
  """
  picture = Image.fromarray(image)
  names = list(KINDS)
  for _ in range(count):
    kind = KINDS[names[rng.integers(len(names))]]
    value = kind.value(strength)
    if kind.signed and rng.random() < 0.5:
      value = -value
    picture = kind.apply(picture, value)
  return np.asarray(picture)


def _moved(
  image: Image.Image, matrix: tuple[float, float, float, float, float, float]
) -> Image.Image:
  # Each pixel of the result is that of the image at matrix @ (x, y, 1); black
  # where there is none.
  return image.transform(image.size, Image.Transform.AFFINE, matrix)


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]):
  return lambda image, value: kind(image).enhance(1 + value)


KINDS: dict[str, Kind] = {
  "identity": Kind(lambda image, value: image),
  "shear_x": Kind(
    lambda image, value: _moved(image, (1, value, 0, 0, 1, 0)), 0.3, signed=True
  ),
  "shear_y": Kind(
    lambda image, value: _moved(image, (1, 0, 0, value, 1, 0)), 0.3, signed=True
  ),
  "translate_x": Kind(
    lambda image, value: _moved(
      image, (1, 0, round(value * image.width), 0, 1, 0)
    ),
    150 / 331,
    signed=True,
  ),
  "translate_y": Kind(
    lambda image, value: _moved(
      image, (1, 0, 0, 0, 1, round(value * image.height))
    ),
    150 / 331,
    signed=True,
  ),
  "rotate": Kind(lambda image, value: image.rotate(value), 30, signed=True),
  "brightness": Kind(_enhanced(ImageEnhance.Brightness), 0.9, signed=True),
  "color": Kind(_enhanced(ImageEnhance.Color), 0.9, signed=True),
  "contrast": Kind(_enhanced(ImageEnhance.Contrast), 0.9, signed=True),
  "sharpness": Kind(_enhanced(ImageEnhance.Sharpness), 0.9, signed=True),
  "posterize": Kind(
    lambda image, value: ImageOps.posterize(image, round(value)), 4, least=8
  ),
  "solarize": Kind(
    lambda image, value: ImageOps.solarize(image, math.ceil(value)),
    0,
    least=255,
  ),
  "autocontrast": Kind(lambda image, value: ImageOps.autocontrast(image)),
  "equalize": Kind(lambda image, value: ImageOps.equalize(image)),
}
"""Every operation by its name."""
