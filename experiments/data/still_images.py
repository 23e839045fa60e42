"""Which kinds of image files are read, and how their colours are converted.

JPEGs are rotated by their EXIF orientation; 16-bit grey is scaled; alpha is
composited on white. Refused are animations, as it is unclear which picture is
meant, and floats and 32-bit integers, whose white is unknown.
"""

import numpy as np
from PIL import ExifTags, Image

_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation."""


def orientation(image: Image.Image) -> Image.Transpose | None:
  """What makes an image upright; None if it is.

  Of a file that holds it behind the pixels, as PNG may, ask once it is loaded.
  """
  if image.format not in ("JPEG", "MPO"):
    image.load()
  try:
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
  except Exception:  # whatever is wrong with it, the pixels are not
    return None


def rgb(image: Image.Image) -> Image.Image:
  """An image in RGB, not yet turned.

  Args:
    image: As it was opened.

  Raises:
    OSError: If it is broken.
    ValueError: If it is animated, or of numbers whose range is not known.
  """
  # The second picture in the JPEG of a phone is a preview, or a gain map.
  frames = getattr(image, "n_frames", 1)
  if frames > 1 and image.format != "MPO":
    raise ValueError(
      f"it is animated, or has several pages: it holds {frames} pictures, and"
      " one is expected."
    )
  if image.mode in ("F", "I"):
    numbers = "floats" if image.mode == "F" else "integers of 32 bits"
    raise ValueError(
      f"its pixels are {numbers}, of which nothing says what is white: expected"
      " 8 or 16 bits per channel."
    )
  if image.mode.startswith("I;16"):
    return _of_16_bits(image)
  if image.has_transparency_data:
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    image = white
  return image.convert("RGB")


def _of_16_bits(image: Image.Image) -> Image.Image:
  """By Pillow itself, all above 255 would be white."""
  values = np.asarray(image).astype(np.uint32)
  grey = ((values + 128) // 257).astype(np.uint8)
  clear = image.info.get("transparency")
  if isinstance(clear, int):
    grey[values == clear] = 255
  return Image.fromarray(grey).convert("RGB")
