"""From an image file to the square of pixels for evaluation."""

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from experiments.data import still_images

EXTENSIONS = frozenset(
  {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
"""How the names of image files end, in lower case."""


@dataclasses.dataclass(frozen=True)
class View:
  """How an image is resized and cropped.

  Attributes:
    size: Side of the square, in pixels.
    fit: "squeeze" resizes the whole image to the square, as DomainBed does: a
      crop would cut off heads in portraits. "crop" keeps the aspect ratio and
      takes the central square, as is usual on ImageNet.
    zoom: Under "crop", the shorter side of the image over that of the central
      square, at least 1. The usual "resize to 256, crop 224" is 256 / 224;
      CLIP's preprocessing is 1.
    interpolation: Of the resizing, antialiased; None is bilinear under
      "squeeze" and bicubic under "crop".
    border: Pixels to cut off each side of the file's image first. ObjectNet has
      a red frame of 2, which tells a model that this is ObjectNet.

  Raises:
    ValueError: On a value out of range; it quotes the value.
  """

  size: int
  fit: Literal["squeeze", "crop"] = "squeeze"
  zoom: float = 1.0
  interpolation: Literal["bilinear", "bicubic"] | None = None
  border: int = 0

  def __post_init__(self):
    if self.size < 1:
      raise ValueError(f"size must be at least 1 pixel, got {self.size}.")
    if self.fit not in ("squeeze", "crop"):
      raise ValueError(f"fit must be 'squeeze' or 'crop', got {self.fit!r}.")
    if self.zoom < 1:
      raise ValueError(f"zoom must be at least 1, got {self.zoom}.")
    if self.interpolation not in (None, "bilinear", "bicubic"):
      raise ValueError(
        "interpolation must be 'bilinear', 'bicubic' or None, got"
        f" {self.interpolation!r}."
      )
    if self.border < 0:
      raise ValueError(f"border must be at least 0, got {self.border}.")

  def in_whole_pixels(self) -> "View":
    """The same, with the shorter side of the image a number of whole pixels.

    So files can tell it, and what reads them sees the same.
    """
    if self.fit == "squeeze":
      return self
    side = max(self.size, round(self.size * self.zoom))
    return dataclasses.replace(self, zoom=side / self.size)

  @property
  def resampling(self) -> Literal["bilinear", "bicubic"]:
    """The interpolation, be it said or the usual one."""
    usual = "bilinear" if self.fit == "squeeze" else "bicubic"
    return self.interpolation or usual

  def of(self, image: Image.Image) -> UInt8[np.ndarray, "size size 3"]:
    """The view of an image, upright and in RGB.

    Raises:
      ValueError: If the border leaves nothing of the image, or it is of a kind
        that is refused; see `still_images.rgb`.
    """
    turned = still_images.orientation(image)
    image = still_images.rgb(image)
    if turned is not None:
      image = image.transpose(turned)
    cut = self.border
    check_border(image.size, cut)
    if cut:
      # Not by `box` below: the filter would still see what lies outside it.
      image = image.crop((cut, cut, image.width - cut, image.height - cut))
    left = top = 0.0
    width, height = map(float, image.size)
    if self.fit == "crop":
      side = min(width, height) / self.zoom
      left, top = left + (width - side) / 2, top + (height - side) / 2
      width = height = side
    resized = image.resize(
      (self.size, self.size),
      Image.Resampling[self.resampling.upper()],
      # Cropping and resizing at once rounds the crop to no whole pixel.
      box=(left, top, left + width, top + height),
    )
    return np.asarray(resized)


def check_border(size: tuple[int, int], border: int) -> None:
  """Whether anything of an image is left without its border.

  Raises:
    ValueError: If not.
  """
  width, height = size
  if min(size) <= 2 * border:
    raise ValueError(
      f"a border of {border} leaves nothing of {width} x {height} pixels."
    )


Content = str | os.PathLike[str] | bytes | UInt8[np.ndarray, "height width 3"]
"""A file, the content of one, or its pixels."""


def decode(
  content: Content, view: View, *, name: str = ""
) -> UInt8[np.ndarray, "size size 3"]:
  """One image as pixels, by Pillow.

  Args:
    content: A path, the bytes of an encoded image, or pixels.
    view: What to see of it.
    name: What to call it in an error; by default the path.

  Raises:
    ValueError: If it is not a readable image; it names the file.
  """
  with readable(content, name):
    if isinstance(content, np.ndarray):
      return view.of(Image.fromarray(content))
    opened = io.BytesIO(content) if isinstance(content, bytes) else content
    with Image.open(opened) as image:
      return view.of(image)


@contextlib.contextmanager
def readable(content: Content, name: str = "") -> Iterator[None]:
  """Turns what a decoder says into an error that names the image."""
  try:
    if (
      isinstance(content, str | os.PathLike)
      and os.path.exists(content)
      and not os.path.isfile(content)  # a pipe would be waited for
    ):
      raise ValueError("it is no regular file.")
    yield
  except Exception as error:  # of any kind: each format has its own parser
    known = isinstance(content, str | os.PathLike)
    name = name or (str(content) if known else "the image")
    raise ValueError(f"{name} is not a readable image: {error}") from error
