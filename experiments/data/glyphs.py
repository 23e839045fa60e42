"""Masks of single digits, from typefaces and hands, and their distortion."""

import functools
import pathlib

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments.data import handwriting

ATLAS = 64  # pixels of a glyph mask; its digit is about 48 of them high
STROKES = (0, 1, 2, 4)  # extra outline, in pixels of the atlas


@functools.cache
def glyph(font: str, digit: int, stroke: int) -> np.ndarray:
  """Draws a digit, centred, 48 of 64 pixels high.

  Args:
    font: The stem of a TTF file that matplotlib ships, or one of
      `handwriting.HANDS`.
    digit: 0 to 9.
    stroke: Index into `STROKES`.

  Returns:
    The mask, float32 [64, 64] in [0, 1]; kept, so not to be written to.
  """
  if font in handwriting.HANDS:
    return handwriting.write(font, digit, STROKES[stroke], ATLAS)
  folder = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
  face = ImageFont.truetype(str(folder / f"{font}.ttf"), 60)
  width = STROKES[stroke]
  image = Image.new("L", (128, 128))
  ImageDraw.Draw(image).text(
    (64, 64), str(digit), fill=255, font=face, anchor="mm", stroke_width=width
  )
  box = image.getbbox()
  assert box is not None, f"{font} has no glyph for {digit}"
  cut = image.crop(box)
  height = 48
  cut = cut.resize((max(1, round(cut.width * height / cut.height)), height))
  atlas = Image.new("L", (ATLAS, ATLAS))
  atlas.paste(cut, ((ATLAS - cut.width) // 2, (ATLAS - height) // 2))
  return np.asarray(atlas, np.float32) / 255


def bend(
  mask: np.ndarray,
  size: int,
  rng: np.random.Generator,
  *,
  rotation: float = 0.0,
  shear: float = 0.0,
  scale: tuple[float, float] = (1.0, 1.0),
  shift: tuple[float, float] = (0.0, 0.0),
  warp: float = 0.0,
) -> np.ndarray:
  """Scales a glyph down to an image, distorted.

  Args:
    mask: From `glyph`.
    size: Height and width of the image.
    rng: Draws the smooth warp.
    rotation: Degrees, counter-clockwise.
    shear: Horizontal slant, in pixels per pixel of height.
    scale: Width and height relative to a digit 20 pixels high.
    shift: Offset of the centre, in pixels, (right, down).
    warp: Largest displacement of the smooth warp, in pixels.

  Returns:
    How much of each pixel is covered, float32 [size, size] in [0, 1].
  """
  fine = 2 * size  # sampled twice as finely, then averaged: no jagged edges
  grid = (np.arange(fine, dtype=np.float32) + 0.5) / 2
  y, x = np.meshgrid(grid, grid, indexing="ij")
  # The smooth warp: one low sine wave per axis across the other axis.
  wave = rng.uniform(0.5, 1.25, 4) * 2 * np.pi / size
  phase = rng.uniform(0, 2 * np.pi, 2)
  amount = warp * rng.uniform(-1, 1, 2)
  x, y = (
    x + amount[0] * np.sin(wave[0] * y + wave[1] * x + phase[0]),
    y + amount[1] * np.sin(wave[2] * x + wave[3] * y + phase[1]),
  )
  x = x - size / 2 - shift[0]
  y = y - size / 2 - shift[1]
  angle = np.deg2rad(rotation)
  x, y = (
    np.cos(angle) * x - np.sin(angle) * y,
    np.sin(angle) * x + np.cos(angle) * y,
  )
  x = (x + shear * y) / scale[0]
  y = y / scale[1]
  zoom = 48 / 20  # pixels of the atlas per pixel of a digit 20 pixels high
  alpha = _bilinear(mask, zoom * x + ATLAS / 2, zoom * y + ATLAS / 2)
  alpha = alpha.reshape(size, 2, size, 2).mean((1, 3))
  return alpha


def _bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Samples `image` at pixel centres (x, y); outside it is 0."""
  padded = np.pad(image, 2)
  x = np.clip(x + 1.5, 0, padded.shape[1] - 2)
  y = np.clip(y + 1.5, 0, padded.shape[0] - 2)
  left, top = x.astype(np.int32), y.astype(np.int32)
  x, y = x - left, y - top
  upper = (1 - x) * padded[top, left] + x * padded[top, left + 1]
  lower = (1 - x) * padded[top + 1, left] + x * padded[top + 1, left + 1]
  return ((1 - y) * upper + y * lower).astype(np.float32)
