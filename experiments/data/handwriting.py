"""Hands that write digits: a style of rendering beside the typefaces.

No typeface leaves its 4 open or crosses its 7, as people do. Each digit is
therefore also given as pen strokes, in the variants that handwriting has; a
*hand* picks one variant of each digit and moves its points a little, once and
for all, as a writer does. The points were set by eye, not taken from data.
"""

import functools

import numpy as np
from PIL import Image, ImageDraw

HANDS = tuple(f"hand-{number}" for number in range(32))
"""Names of the hands, to stand among those of typefaces."""

# Per digit, variants; per variant, strokes; per stroke, points (x, y) in the
# unit square, y downwards. A smooth curve runs through the points of a stroke.
_STROKES = (
  (
    "50,0 15,20 5,55 25,95 60,100 90,70 90,30 65,3 45,2",
    "60,5 25,10 10,50 20,90 50,100 80,80 85,40 70,10 45,0",
  ),
  (
    "50,0 50,100",
    "25,28 60,0 | 60,0 55,100",
    "25,25 55,0 | 55,0 55,100 | 20,100 90,100",
    "10,50 60,0 | 60,0 60,100",
  ),
  (
    "10,25 30,3 65,3 85,28 60,60 10,100 | 10,100 95,100",
    "10,20 40,0 80,20 65,60 25,95 12,85 30,75 60,95 95,95",
  ),
  (
    "10,12 45,0 80,15 75,38 40,48 | 40,48 80,58 90,80 55,100 8,90",
    "10,0 85,0 | 85,0 40,42 | 40,42 85,55 85,85 50,100 8,88",
  ),
  (
    "20,0 10,55 | 10,55 95,55 | 75,10 70,100",
    "65,0 5,65 | 5,65 95,65 | 65,0 65,100",
    "15,5 5,40 30,55 80,45 | 85,0 80,45 70,100",
    "50,0 10,60 | 10,60 95,60 | 65,35 60,100",
  ),
  (
    "85,0 20,0 | 20,0 15,42 | 15,42 55,35 90,60 75,92 40,100 8,88",
    "20,5 90,0 | 25,0 20,45 | 20,45 65,40 80,70 60,95 10,100",
  ),
  (
    "75,0 35,20 10,60 20,92 55,100 88,80 75,55 40,52 13,72",
    "40,0 12,50 15,90 50,100 85,80 70,55 30,55 12,75",
  ),
  (
    "5,0 95,0 | 95,0 40,100",
    "5,2 95,0 | 95,0 40,100 | 25,50 90,48",
    "8,18 8,0 | 8,0 95,2 | 95,2 55,50 40,100 | 20,52 90,46",
  ),
  (
    "85,15 50,0 18,20 45,47 85,75 55,100 15,80 45,50 80,25 80,10",
    "50,0 20,20 50,45 80,20 50,0 | 50,45 10,75 50,100 90,75 50,45",
  ),
  (
    "85,20 55,0 15,20 30,48 65,48 85,20 | 85,20 80,60 65,100",
    "85,22 50,0 12,22 35,50 80,30 | 85,20 85,70 60,100 15,92",
  ),
)


@functools.cache
def write(hand: str, digit: int, extra: int, size: int) -> np.ndarray:
  """Writes a digit.

  Args:
    hand: One of `HANDS`.
    digit: 0 to 9.
    extra: Added to the width of the pen, in pixels.
    size: Height and width of the image; the digit is ¾ as high.

  Returns:
    The ink, float32 [size, size] in [0, 1].
  """
  rng = np.random.default_rng((HANDS.index(hand), digit))
  text = str(rng.choice(_STROKES[digit]))
  pen = 4 + extra + rng.uniform(0, 2)
  height, width = 0.75 * size - pen, rng.uniform(0.45, 0.65) * size - pen
  image = Image.new("L", (2 * size, 2 * size))  # drawn twice as large
  canvas = ImageDraw.Draw(image)
  for stroke in text.split("|"):
    points = np.array([p.split(",") for p in stroke.split()], float) / 100
    points = points + 0.04 * rng.standard_normal(points.shape)
    line = (_smooth(points) - 0.5) * (width, height) + size / 2
    line = [tuple(2 * point) for point in line]
    canvas.line(line, fill=255, width=round(2 * pen), joint="curve")
    for x, y in (line[0], line[-1]):  # round ends
      canvas.ellipse((x - pen, y - pen, x + pen, y + pen), fill=255)
  small = image.resize((size, size), Image.Resampling.BOX)
  return np.asarray(small, np.float32) / 255


def _smooth(points: np.ndarray) -> np.ndarray:
  """A Catmull-Rom spline through `points`, [n, 2] to [12 (n − 1) + 1, 2]."""
  steps = 12
  p = np.concatenate([points[:1], points, points[-1:]])
  t = (np.arange(steps) / steps)[:, None]
  pieces = [
    0.5
    * (
      2 * b
      + (c - a) * t
      + (2 * a - 5 * b + 4 * c - d) * t**2
      + (3 * b - a - 3 * c + d) * t**3
    )
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
  ]
  return np.concatenate([*pieces, points[-1:]])
