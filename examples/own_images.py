"""Folders of images to predictions, by the commands, on images made here.

  python examples/own_images.py

Scanned digits as PNG files, in a folder for each class, stand for your own
photographs, inverted ones for images of another kind, and the CLIP that comes
with the repository for yours. It needs a clone, as the commands do.
`docs/guides/own_images.md` explains the flags.
"""

import csv
import pathlib
import tempfile

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from experiments import predict, train

CLIP = pathlib.Path(__file__).parents[1] / "experiments" / "demo_clip"
NAMES = ("zero", "one", "two", "three")
STEPS = 100


def write(folder, images, labels):
  for row, (image, label) in enumerate(zip(images, labels, strict=True)):
    place = folder / NAMES[label]
    place.mkdir(parents=True, exist_ok=True)
    pixels = np.uint8(image.reshape(8, 8) * 255 / 16)
    Image.fromarray(pixels).resize((28, 28)).save(place / f"{row:04}.png")


def main():
  images, labels = load_digits(n_class=len(NAMES), return_X_y=True)
  with tempfile.TemporaryDirectory() as folder:
    here = pathlib.Path(folder)
    write(here / "train", images[:400], labels[:400])
    write(here / "inverted", 16 - images[400:500], labels[400:500])
    write(here / "new", images[500:], labels[500:])

    export, table = here / "model", here / "predictions.csv"
    arguments = ["gmixout", "--backbone", CLIP, "--train", here / "train"]
    arguments += ["--ood", f"inverted={here / 'inverted'}"]
    arguments += ["--templates", "a white digit {} on a black plain background"]
    arguments += ["--steps", STEPS, "--export", export]
    arguments += ["--results", here / "results.jsonl"]
    train.main(train.parse([*map(str, arguments)]))

    arguments = [export, here / "new", "--out", table]
    predict.main(predict.parse([*map(str, arguments)]))
    with open(table, newline="", encoding="utf-8") as file:
      rows = list(csv.DictReader(file))
  right = np.mean([row["file"].startswith(row["class"] + "/") for row in rows])
  print(f"{100 * right:.1f}% of {len(rows)} new images are of their class")


if __name__ == "__main__":
  main()
