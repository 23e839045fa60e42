"""JPEGs for the benchmark of input: rendered, and every other one noisy.

They have what resizing has to get right: sharp edges, and stripes of all
widths down to two and a half pixels.
"""

import io

import numpy as np
from PIL import Image

QUALITY = 90
NOISE = 3.0
"""Its deviation, of 255, as of a camera in daylight."""


def jpegs(width: int, height: int, count: int, *, seed: int = 0) -> list[bytes]:
  """Encoded pictures of a size, with chroma at half the resolution."""
  rng = np.random.default_rng((seed, width, height))
  found = []
  for number in range(count):
    pixels = render(width, height, rng)
    if number % 2:
      pixels = pixels + rng.normal(0, NOISE, pixels.shape)
    file = io.BytesIO()
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(file, "JPEG", quality=QUALITY)
    found.append(file.getvalue())
  return found


def render(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
  """A soft ground with discs and striped squares, [height, width, 3]."""
  y, x = np.mgrid[:height, :width].astype(float)
  phases = rng.uniform(0, 6, 3)
  waves = [np.sin(x / 40 + y / 90 + phase) for phase in phases]
  pixels = 127 + 80 * np.stack(waves, axis=-1)
  for _ in range(60):
    at, radius = rng.uniform(0, (width, height)), rng.uniform(4, 60)
    inside = (x - at[0]) ** 2 + (y - at[1]) ** 2 < radius**2
    pixels[inside] = rng.uniform(0, 255, 3)
  for _ in range(30):
    at, angle = rng.uniform(0, (width, height)), rng.uniform(0, np.pi)
    period = rng.uniform(2.5, 12)
    inside = (np.abs(x - at[0]) < 40) & (np.abs(y - at[1]) < 40)
    along = x[inside] * np.cos(angle) + y[inside] * np.sin(angle)
    pixels[inside] += 50 * np.sin(2 * np.pi * along / period)[:, None]
  return pixels
