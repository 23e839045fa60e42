"""Random crops of the original image, resized once.

A crop is drawn in the pixels of the file. Where it is more than twice as large
as what it is resized to, it is first shrunk by the largest power of two that
leaves it larger: a JPEG while it is decoded, by leaving out the higher
frequencies of its cosine transform. What is then to be shrunk, by less than two
along the shorter side, is blurred as much as the triangle filter of Pillow's
`BILINEAR` would, and interpolated. OpenCV's own filters would not do: its
linear one does not blur, and doubles the energy of high frequencies by
aliasing; its box ("area") adds a third.
"""

import io
import math
import os
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from experiments.data import still_images
from experiments.data.decode import Content, check_border, readable

# Whoever calls is one of many threads, or processes, that decode at once.
cv2.setNumThreads(0)

Pixels = UInt8[np.ndarray, "height width 3"]

ASPECTS = (3 / 4, 4 / 3)
"""Width over height of a crop, at least and at most."""

_ATTEMPTS = 10
_LARGEST_IN_JPEG = 8  # by which its blocks of 8 x 8 can be shrunk
_TURNING = (b"Exif", b"http://ns.adobe.com/xap/")  # may tell an orientation


class Box(NamedTuple):
  """Part of an image, in whole pixels.

  Attributes:
    left: First column.
    top: First row.
    width: Columns.
    height: Rows.
  """

  left: int
  top: int
  width: int
  height: int


def draw_box(
  width: int,
  height: int,
  areas: tuple[float, float],
  rng: np.random.Generator,
) -> Box:
  """A box of random area, proportions and place, of "Inception" crops.

  Area is uniform and the logarithm of the proportions too. A box that is larger
  than the image is drawn again, ten times; then it is the central one of the
  image's own proportions, or the nearest that are allowed.

  Args:
    width: Of the image, in pixels.
    height: Likewise.
    areas: Of the image's area, the least share and the largest, in (0, 1].
    rng: What draws.

  Source:
    Szegedy and others, Going deeper with convolutions (2014), section 6, as
    torchvision's `RandomResizedCrop` has it.
  """
  least, most = areas
  narrow, broad = ASPECTS
  for _ in range(_ATTEMPTS):
    # Numbers in [0, 1) are drawn ten times as fast as those in other ranges.
    area = width * height * (least + (most - least) * rng.random())
    aspect = narrow * (broad / narrow) ** rng.random()
    wide = max(1, round(math.sqrt(area * aspect)))
    high = max(1, round(math.sqrt(area / aspect)))
    if wide <= width and high <= height:
      left = int(rng.random() * (width - wide + 1))
      top = int(rng.random() * (height - high + 1))
      return Box(left, top, wide, high)
  aspect = min(max(width / height, ASPECTS[0]), ASPECTS[1])
  wide = max(1, min(width, round(height * aspect)))
  high = max(1, min(height, round(width / aspect)))
  return Box((width - wide) // 2, (height - high) // 2, wide, high)


def reduction(box: Box, size: tuple[int, int]) -> int:
  """The power of two to shrink by first, which leaves a crop larger than that.

  Of a crop of just twice the size nothing would be left to blur, and cutting
  off frequencies alone leaves twice the energy of the high ones.

  Args:
    box: The crop.
    size: Height and width to resize it to.

  Example:
    >>> reduction(Box(0, 0, 500, 700), (224, 224))
    2
    >>> reduction(Box(0, 0, 448, 700), (224, 224))
    1
  """
  high, wide = size
  shrinks = min(box.width / wide, box.height / high)
  return 2 ** max(0, math.ceil(math.log2(shrinks)) - 1)


def aligned(box: Box, size: tuple[int, int]) -> Box:
  """The box in whole pixels of the image that is shrunk first.

  So it is the same part of the image whichever decoder has shrunk it.

  Args:
    box: As drawn.
    size: Height and width to resize it to.

  Example:
    >>> aligned(Box(3, 7, 501, 700), (224, 224))
    Box(left=2, top=6, width=500, height=700)
  """
  shrink = reduction(box, size)
  return Box(*(side // shrink * shrink for side in box))


def cut_out(
  content: Content,
  size: tuple[int, int],
  areas: tuple[float, float],
  rng: np.random.Generator,
  *,
  border: int = 0,
  name: str = "",
) -> Pixels:
  """A random crop of an image, resized.

  Args:
    content: A path, the bytes of an encoded image, or pixels.
    size: Height and width of the result, in pixels.
    areas: See `draw_box`.
    rng: What draws.
    border: Pixels off each side that no crop sees.
    name: What to call it in an error; by default the path.

  Raises:
    ValueError: If it is not a readable image; it names the file.
  """

  def drawn(width: int, height: int) -> Box:
    check_border((width, height), border)
    inner = draw_box(width - 2 * border, height - 2 * border, areas, rng)
    inner = inner._replace(left=inner.left + border, top=inner.top + border)
    return aligned(inner, size)

  with readable(content, name):
    if isinstance(content, np.ndarray):
      height, width = content.shape[:2]
      return crop_pixels(content, drawn(width, height), size)
    data = content if isinstance(content, bytes) else _read(content)
    box = None
    if (original := plain_jpeg(data)) is not None:
      box = drawn(*original)
      if (found := crop_jpeg(data, original, box, size)) is not None:
        return found
    with Image.open(io.BytesIO(data)) as image:
      # As a turned crop is as likely as one of the turned image.
      turned = still_images.orientation(image)
      box = box or drawn(*image.size)
      found = None
      if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        found = crop_jpeg(data, image.size, box, size)
      if found is None:
        found = crop_pixels(np.asarray(still_images.rgb(image)), box, size)
  if turned is not None:
    found = np.asarray(Image.fromarray(found).transpose(turned))
  return found


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
  """Width and height of a JPEG that nothing turns; None of all else.

  Most are such, and Pillow takes a twentieth of the time to say so.

  Args:
    data: Of the file.
  """
  header = data[: data.find(b"\xff\xda")]  # up to where the pixels begin
  if header[:2] != b"\xff\xd8" or any(name in header for name in _TURNING):
    return None
  try:
    header_says: Any = simplejpeg.decode_jpeg_header(data)
  except ValueError:
    return None
  height, width, colours, _ = header_says
  most = Image.MAX_IMAGE_PIXELS or math.inf
  fits = colours in ("YCbCr", "Gray") and width * height <= most
  return (width, height) if fits else None


def crop_jpeg(
  data: bytes, original: tuple[int, int], box: Box, size: tuple[int, int]
) -> Pixels | None:
  """A box of a JPEG, resized; None if it is for Pillow, which forgives more.

  Args:
    data: Of the file.
    original: Width and height of its image.
    box: Which part, aligned.
    size: Height and width of the result.
  """
  width, height = original
  shrunk = reduction(box, size)
  factor = min(shrunk, _LARGEST_IN_JPEG)
  wide, high = -(-width // factor), -(-height // factor)
  try:
    pixels = simplejpeg.decode_jpeg(
      data,
      "RGB",
      # Faster by a tenth; too coarse for what is not averaged afterwards.
      fastdct=factor > 1,
      min_width=wide,
      min_height=high,
      min_factor=factor,
    )
  except ValueError:
    return None
  if pixels.shape[:2] != (high, wide):
    return None
  return _resized(pixels, box, size, shrunk, done=factor)


def crop_pixels(pixels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
  """An aligned box of pixels, resized to a height and width."""
  return _resized(pixels, box, size, reduction(box, size), done=1)


def _resized(
  pixels: Pixels, box: Box, size: tuple[int, int], shrink: int, *, done: int
) -> Pixels:
  """A box of what was shrunk by `done`, of `shrink`, already."""
  left, top, wide, high = (side // done for side in box)
  part = pixels[top : top + high, left : left + wide]
  if shrink > done:
    to = (wide * done // shrink, high * done // shrink)
    part = cv2.resize(part, to, interpolation=cv2.INTER_AREA)
  high, wide = size
  across, down = _blur(part.shape[1] / wide), _blur(part.shape[0] / high)
  if across.size > 1 or down.size > 1:
    part = cv2.sepFilter2D(
      part, -1, across, down, borderType=cv2.BORDER_REPLICATE
    )
  resized = cv2.resize(part, (wide, high), interpolation=cv2.INTER_LINEAR)
  return np.asarray(resized)


def _blur(shrink: float) -> np.ndarray:
  """What to blur with, along one axis, before interpolation.

  A triangle filter that shrinks s-fold has variance s²/6 in pixels of the
  image, and linear interpolation has 1/6 of it.
  """
  variance = (shrink**2 - 1) / 6
  if variance <= 0:
    return np.ones(1)
  if variance <= 0.5:  # s <= 2
    return np.array([variance / 2, 1 - variance, variance / 2])
  deviation = math.sqrt(variance)
  return cv2.getGaussianKernel(2 * math.ceil(2.5 * deviation) + 1, deviation)


def _read(path: str | os.PathLike[str]) -> bytes:
  with open(path, "rb") as file:
    return file.read()
