"""What cameras, screens and files do."""

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from experiments.data.corruptions.kind import Pixels


def _to_image(image: Pixels) -> Image.Image:
  return Image.fromarray(np.round(255 * image.clip(0, 1)).astype(np.uint8))


def contrast(
  image: Pixels, strength: float, rng: np.random.Generator
) -> Pixels:
  """Shrinks every channel towards its mean; strength is what remains."""
  del rng
  mean = image.mean(axis=(0, 1), keepdims=True)
  return mean + strength * (image - mean)


def saturate(
  image: Pixels, strength: float, rng: np.random.Generator
) -> Pixels:
  """Scales the distance from grey; 0 is greyscale, 1 the image."""
  del rng
  grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
  return grey + strength * (image - grey)


def pixelate(
  image: Pixels, strength: float, rng: np.random.Generator
) -> Pixels:
  """Larger pixels; strength is how many remain of each side, as a share."""
  del rng
  height, width = image.shape[:2]
  small = (max(1, round(strength * width)), max(1, round(strength * height)))
  shrunk = _to_image(image).resize(small, Image.Resampling.BOX)
  large = shrunk.resize((width, height), Image.Resampling.NEAREST)
  return np.asarray(large) / 255


def jpeg(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """A JPEG file and back; strength is Pillow's quality."""
  del rng
  file = io.BytesIO()
  _to_image(image).save(file, "jpeg", quality=round(strength))
  with Image.open(file) as image_again:
    return np.asarray(image_again) / 255


def elastic(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
  """Bends the image; strength is the deviation of the displacement.

  As a share of the shorter side. Displacements are normal noise, smoothed over
  a twentieth of it.
  """
  height, width = image.shape[:2]
  side = min(height, width)
  moves = ndimage.gaussian_filter(
    rng.standard_normal((2, height, width)), (0, side / 20, side / 20)
  )
  moves *= (
    strength * side / np.maximum(moves.std(axis=(1, 2)), 1e-12).reshape(2, 1, 1)
  )
  at = np.mgrid[:height, :width] + moves
  return np.stack(
    [
      ndimage.map_coordinates(image[..., c], at, order=1, mode="reflect")
      for c in range(3)
    ],
    axis=-1,
  )
