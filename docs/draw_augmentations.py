"""Draws `docs/pictures/augmentations.png`: what training sees of an image.

  python -m docs.draw_augmentations

One drawing, as evaluation sees it and as each augmentation shows it.
"""

import io
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

from experiments.data.augmentation import POLICIES
from experiments.data.decode import View, decode

SIDE, COLUMNS = 128, 8
PICTURE = pathlib.Path(__file__).parent / "pictures" / "augmentations.png"


def drawing() -> Image.Image:
  """A house under the sun, 500 x 375."""
  y = np.linspace(0, 1, 375)[:, None, None]
  sky = (1 - y) * (90, 160, 235) + y * (225, 240, 250)
  image = Image.fromarray(np.tile(sky, (1, 500, 1)).astype(np.uint8))
  draw = ImageDraw.Draw(image)
  draw.rectangle((0, 270, 500, 375), fill=(96, 160, 72))
  for x in range(0, 500, 12):
    draw.line((x, 375, x + 6, 345), fill=(70, 130, 50), width=2)
  draw.ellipse((390, 30, 460, 100), fill=(255, 214, 60))
  draw.rectangle((120, 170, 300, 300), fill=(214, 120, 90))
  for row in range(180, 300, 12):
    draw.line((120, row, 300, row), fill=(180, 95, 70))
  draw.polygon(((100, 170), (210, 90), (320, 170)), fill=(120, 50, 50))
  draw.rectangle((140, 225, 180, 300), fill=(80, 50, 30))
  for x in (205, 255):
    draw.rectangle((x, 195, x + 30, 225), fill=(250, 245, 210))
    draw.line((x + 15, 195, x + 15, 225), fill=(90, 60, 40), width=2)
  draw.rectangle((385, 220, 397, 300), fill=(110, 80, 50))
  draw.ellipse((350, 140, 432, 240), fill=(40, 110, 60))
  return image


def main() -> None:
  """Writes the picture."""
  file = io.BytesIO()
  drawing().save(file, "JPEG", quality=95)
  data = file.getvalue()
  figure, axes = plt.subplots(
    len(POLICIES) + 1, COLUMNS, figsize=(8, 4.4), layout="constrained"
  )
  for axis in axes.flat:
    axis.axis("off")

  def titled(axis, image, title) -> None:
    axis.imshow(image)
    axis.axis("off")
    axis.set_title(title, fontsize=9, loc="left")

  titled(
    axes[0, 0], decode(data, View(SIDE, fit="crop")), "none, as in evaluation"
  )
  whole = figure.add_subplot(axes[0, 0].get_gridspec()[0, 2:4])
  titled(whole, drawing(), "the file")
  for line, (name, policy) in zip(axes[1:], POLICIES.items(), strict=True):
    for seed, axis in enumerate(line):
      rng = np.random.default_rng(seed)
      image = policy.drawn(data, (SIDE, SIDE), rng)
      titled(axis, image, "" if seed else name)
  PICTURE.parent.mkdir(exist_ok=True)
  figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
  main()
