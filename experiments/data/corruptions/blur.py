"""Blur. Strengths are shares of the image's shorter side."""

import numpy as np
from scipy import ndimage

from experiments.data.corruptions.kind import Pixels


def _side(image: Pixels) -> int:
  return min(image.shape[:2])


def _spread(image: Pixels, kernel: np.ndarray) -> Pixels:
  """Convolves every channel with a kernel of sum 1; edges are mirrored."""
  kernel = kernel / kernel.sum()
  return np.stack(
    [
      ndimage.convolve(image[..., c], kernel, mode="reflect")
      for c in range(image.shape[-1])
    ],
    axis=-1,
  )


def gaussian(
  image: Pixels, strength: float, rng: np.random.Generator
) -> Pixels:
  """A normal kernel; strength is its standard deviation."""
  del rng
  sigma = strength * _side(image)
  return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="reflect")


def defocus(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """A disc, as a lens out of focus makes; strength is its radius."""
  del rng
  radius = strength * _side(image)
  reach = int(np.ceil(radius))
  y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
  # The rim counts by the share that it covers, so that radii of less than a
  # pixel differ.
  return _spread(image, np.clip(radius + 0.5 - np.hypot(y, x), 0, 1))


def motion(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """A streak in a random direction; strength is its length."""
  length = max(strength * _side(image), 1)
  angle = rng.uniform(0, np.pi)
  reach = int(np.ceil(length / 2))
  kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
  for t in np.linspace(-length / 2, length / 2, 8 * reach + 1):
    row, column = reach + t * np.sin(angle), reach + t * np.cos(angle)
    kernel[round(row), round(column)] += 1
  return _spread(image, kernel)


def zoom(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """The mean over magnifications from 1 to 1 + strength, about the centre."""
  del rng
  height, width = image.shape[:2]
  total = np.zeros_like(image)
  factors = np.linspace(1, 1 + strength, 9)
  for factor in factors:
    rows = (np.arange(height) - (height - 1) / 2) / factor + (height - 1) / 2
    columns = (np.arange(width) - (width - 1) / 2) / factor + (width - 1) / 2
    at = np.meshgrid(rows, columns, indexing="ij")
    for c in range(3):
      total[..., c] += ndimage.map_coordinates(
        image[..., c], at, order=1, mode="reflect"
      )
  return total / len(factors)
