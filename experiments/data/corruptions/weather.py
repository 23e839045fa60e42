"""What looks like weather: fog, snow, rain, frost and glare.

They are drawn, not simulated: enough to hide and to whiten as weather does.
"""

import numpy as np
from scipy import ndimage

from experiments.data.corruptions.kind import Pixels


def clouds(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
  """Fractal noise [height, width] from 0 to 1: octaves of random grids.

  An octave has twice the cells of the one before and half its weight, from a
  2 x 2 grid down to cells of two pixels.
  """
  field = np.zeros((height, width))
  weight, cells = 1.0, 2
  while cells <= max(2, min(height, width) // 2):
    grid = rng.random((cells + 1, cells + 1))
    rows = np.linspace(0, cells, height)
    columns = np.linspace(0, cells, width)
    at = np.meshgrid(rows, columns, indexing="ij")
    field += weight * ndimage.map_coordinates(grid, at, order=1)
    weight, cells = weight / 2, 2 * cells
  low, high = field.min(), field.max()
  return (field - low) / max(high - low, 1e-12)


def fog(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """Mixes in light grey clouds; strength is how much at their thickest.

  Even the thinnest fog is half as thick.
  """
  height, width = image.shape[:2]
  field = clouds(height, width, rng)[..., None]
  cover = strength * (0.5 + 0.5 * field)
  return (1 - cover) * image + cover * 0.9


def frost(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """Whitens where clouds are thick; strength is the share that is covered."""
  height, width = image.shape[:2]
  field = clouds(height, width, rng)
  ice = np.clip(8 * (field - np.quantile(field, 1 - strength)) + 0.5, 0, 1)
  grain = 0.75 + 0.25 * rng.random(image.shape[:2])
  cover = (0.85 * ice)[..., None]
  return (1 - cover) * image + cover * grain[..., None] * (0.9, 0.95, 1.0)


def _streaks(
  height: int,
  width: int,
  share: float,
  length: float,
  angle: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Specks smeared along an angle from the vertical, [height, width]."""
  specks = (rng.random((height, width)) < share).astype(float)
  reach = max(1, round(length))
  kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
  for t in np.linspace(-reach, reach, 8 * reach + 1):
    row, column = reach + t * np.cos(angle), reach + t * np.sin(angle)
    kernel[round(row), round(column)] = 1
  return np.clip(ndimage.convolve(specks, kernel, mode="constant"), 0, 1)


def snow(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """White flakes and a whiter scene; strength is the share of flakes' seeds."""
  height, width = image.shape[:2]
  angle = rng.uniform(-0.6, 0.6)
  flakes = _streaks(
    height, width, strength, min(height, width) / 60, angle, rng
  )
  flakes = ndimage.gaussian_filter(flakes, 0.5)[..., None]
  whiter = image + min(4 * strength, 0.3) * (1 - image)
  return (1 - flakes) * whiter + flakes


def rain(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """Grey streaks over a darker scene; strength is the share of their seeds."""
  height, width = image.shape[:2]
  angle = rng.uniform(-0.3, 0.3)
  length = min(height, width) / 16
  drops = 0.6 * _streaks(height, width, strength, length, angle, rng)[..., None]
  darker = (1 - min(10 * strength, 0.35)) * image
  return (1 - drops) * darker + drops * 0.75


def brightness(
  image: Pixels, strength: float, rng: np.random.Generator
) -> Pixels:
  """Glare: adds strength to every value."""
  del rng
  return image + strength
