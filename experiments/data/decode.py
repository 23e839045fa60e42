"""From an image file to a square of pixels."""

import dataclasses
import io
import os
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

EXTENSIONS = frozenset(
  {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
"""How the names of image files end, in lower case."""


@dataclasses.dataclass(frozen=True)
class View:
  """What of an image is seen, and how large.

  Attributes:
    size: Side of the square, in pixels.
    fit: "squeeze" resizes the whole image to the square, as DomainBed does: a
      crop would cut off heads in portraits. "crop" keeps the proportions and
      takes the central square, as is usual on ImageNet.
    zoom: Under "crop", the shorter side of the image over that of the central
      square, at least 1. The usual "resize to 256, crop 224" is 256 / 224;
      CLIP's preprocessing is 1.
    border: Pixels to cut off each side of the file's image first. ObjectNet has
      a red frame of 2, which tells a model that this is ObjectNet.

  Raises:
    ValueError: On a value out of range; it quotes the value.
  """

  size: int
  fit: Literal["squeeze", "crop"] = "squeeze"
  zoom: float = 1.0
  border: int = 0

  def __post_init__(self):
    if self.size < 1:
      raise ValueError(f"size must be at least 1 pixel, got {self.size}.")
    if self.fit not in ("squeeze", "crop"):
      raise ValueError(f"fit must be 'squeeze' or 'crop', got {self.fit!r}.")
    if self.zoom < 1:
      raise ValueError(f"zoom must be at least 1, got {self.zoom}.")
    if self.border < 0:
      raise ValueError(f"border must be at least 0, got {self.border}.")

  def of(self, image: Image.Image) -> UInt8[np.ndarray, "size size 3"]:
    """The view of an image, in RGB.

    Raises:
      ValueError: If the border leaves nothing of the image.
    """
    cut = self.border
    if min(image.size) <= 2 * cut:
      raise ValueError(
        f"a border of {cut} leaves nothing of {image.width} x {image.height}"
        " pixels."
      )
    if cut:
      # Not by `box` below: the filter would still see what lies outside it.
      image = image.crop((cut, cut, image.width - cut, image.height - cut))
    left = top = 0.0
    width, height = map(float, image.size)
    if self.fit == "crop":
      side = min(width, height) / self.zoom
      left, top = left + (width - side) / 2, top + (height - side) / 2
      width = height = side
    filters = Image.Resampling
    resized = image.convert("RGB").resize(
      (self.size, self.size),
      filters.BILINEAR if self.fit == "squeeze" else filters.BICUBIC,
      # Cropping and resizing at once rounds the crop to no whole pixel.
      box=(left, top, left + width, top + height),
    )
    return np.asarray(resized)


def decode(
  file: str | os.PathLike[str] | bytes, view: View, *, name: str = ""
) -> UInt8[np.ndarray, "size size 3"]:
  """One image file, or its content, as pixels.

  Args:
    file: A path, or the bytes of an encoded image.
    view: What to see of it.
    name: What to call it in an error; by default the path.

  Raises:
    ValueError: If it is not a readable image; it names the file.
  """
  opened = io.BytesIO(file) if isinstance(file, bytes) else file
  try:
    with Image.open(opened) as image:
      return view.of(image)
  except (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,  # a broken header may claim any size
  ) as error:
    name = name or ("the image" if isinstance(file, bytes) else str(file))
    raise ValueError(f"{name} is not a readable image: {error}") from error
