"""Noise: what sensors and transmission add."""

import numpy as np

from experiments.data.corruptions.kind import Pixels


def gaussian(
  image: Pixels, strength: float, rng: np.random.Generator
) -> Pixels:
  """Normal noise; strength is its standard deviation."""
  return image + strength * rng.standard_normal(image.shape)


def shot(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """Photon noise; strength is how many photons white is."""
  return rng.poisson(image * strength) / strength


def impulse(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """Salt and pepper; strength is the share of values that are 0 or 1."""
  hit = rng.random(image.shape) < strength
  return np.where(hit, rng.integers(0, 2, image.shape), image)


def speckle(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """Noise that grows with brightness; strength is its deviation at 1."""
  return image * (1 + strength * rng.standard_normal(image.shape))
