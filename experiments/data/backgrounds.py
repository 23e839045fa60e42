"""Colours by name, and the papers that digits are printed on."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

SIZE = 28
"""Height and width of every image, in pixels."""

COLOURS = {
  "black": (12, 12, 12),
  "gray": (128, 128, 128),
  "white": (245, 245, 245),
  "red": (205, 35, 35),
  "orange": (240, 140, 25),
  "yellow": (240, 220, 50),
  "green": (40, 150, 60),
  "cyan": (50, 200, 210),
  "blue": (35, 65, 200),
  "purple": (120, 40, 160),
  "pink": (240, 130, 180),
  "brown": (115, 70, 35),
}

GREYS = ("black", "gray", "white")

TEXTURES = ("plain", "striped", "checkered", "dotted", "cloudy", "shaded")


def draw_colours(
  rng: np.random.Generator, names: Iterable[str] = COLOURS
) -> tuple[str, str]:
  """Two of the named colours that stay apart in brightness."""
  names = list(names)
  while True:
    ink, paper = rng.choice(names, 2, replace=False)
    if abs(_brightness(ink) - _brightness(paper)) > 70:
      return str(ink), str(paper)


def _brightness(name: str) -> float:
  return float(np.dot(COLOURS[name], (0.299, 0.587, 0.114)))


def shade(name: str, rng: np.random.Generator) -> np.ndarray:
  """The colour called `name`, RGB, a little off."""
  return np.clip(np.asarray(COLOURS[name]) + rng.uniform(-18, 18, 3), 0, 255)


def background(
  colour: np.ndarray, texture: str, rng: np.random.Generator
) -> np.ndarray:
  """A background, float [28, 28, 3], around `colour` in two tones.

  Args:
    colour: RGB, 0 to 255.
    texture: One of `TEXTURES`.
    rng: Draws the second tone, the period, the angle and the phase.
  """
  y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
  angle = rng.uniform(0, np.pi)
  period = rng.uniform(4, 9)
  phase = rng.uniform(0, 2 * np.pi, 2)
  u = np.cos(angle) * x + np.sin(angle) * y
  v = -np.sin(angle) * x + np.cos(angle) * y
  wave_u = np.sin(2 * np.pi * u / period + phase[0])
  wave_v = np.sin(2 * np.pi * v / period + phase[1])
  match texture:
    case "plain":
      pattern = np.zeros_like(u)
    case "striped":
      pattern = np.clip(2 * wave_u, -1, 1)
    case "checkered":
      pattern = np.clip(4 * wave_u * wave_v, -1, 1)
    case "dotted":
      pattern = np.clip(4 * (wave_u + wave_v) - 4, -1, 1)
    case "cloudy":
      cells = rng.uniform(-1, 1, (5, 5)).astype(np.float32)
      smooth = Image.fromarray(cells).resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC
      )
      pattern = np.asarray(smooth)
    case "shaded":
      pattern = (u - u.mean()) / (0.5 * SIZE)
    case _:
      raise ValueError(f"texture must be one of {TEXTURES}, got {texture!r}.")
  # The second tone is a lighter or darker one of the same colour, so that the
  # caption's colour word stays true and the digit stays readable.
  tone = rng.uniform(20, 50) * np.sign(127.5 - colour.mean())
  tint = rng.uniform(0.6, 1.0, 3)
  return colour + 0.5 * tone * tint * (pattern[..., None] + 1)
