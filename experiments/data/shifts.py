"""What the demo's fine-tuning never sees: shifts of the scanned digits.

Seven functions change test scans, uint8 [n, 28, 28, 3] to the same, with the
randomness of a NumPy generator; an eighth set, "typeset", is another source
altogether: rendered digits in typefaces that pretraining did not see either.
Their strengths are those at which a person still reads nearly every digit.
"textured" was redefined once, after a first evaluation of all methods on an
early checkpoint had shown that it was hardly a shift; no accuracy on any of
them has decided anything since.
"""

import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from experiments.data import backgrounds, rendered_digits
from experiments.data.split import Split

Shift = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def invert(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Dark on light: 255 − x. Applied twice, it gives the images back."""
  del rng
  return 255 - images


def colour(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Ink and paper in two of twelve colours, either one the brighter.

  The scan's brightness is read as coverage; the colours differ by at least 70
  of 255 in brightness and vary a little from image to image.
  """
  pictures = []
  for image in images:
    ink, paper = backgrounds.draw_colours(rng)
    pictures.append(
      _print(
        image,
        backgrounds.shade(ink, rng),
        backgrounds.shade(paper, rng)[None, None],
      )
    )
  return np.stack(pictures)


def texture(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """As `colour`, on stripes, checks, dots, clouds or a gradient.

  The background has two tones of the paper's colour.
  """
  kinds = [k for k in backgrounds.TEXTURES if k != "plain"]
  pictures = []
  for image in images:
    ink, paper = backgrounds.draw_colours(rng)
    pictures.append(
      _print(
        image,
        backgrounds.shade(ink, rng),
        backgrounds.background(
          backgrounds.shade(paper, rng), str(rng.choice(kinds)), rng
        ),
      )
    )
  return np.stack(pictures)


def noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Adds Gaussian noise of standard deviation 70 (of 255) per channel."""
  noisy = images + 70 * rng.standard_normal(images.shape)
  return np.clip(noisy, 0, 255).astype(np.uint8)


def blur(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Gaussian blur with a standard deviation of 2 pixels."""
  del rng
  return _each(images, lambda x: x.filter(ImageFilter.GaussianBlur(2)))


def tilt(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Rotates by 15 to 35 degrees, to either side, shrunk to 6/7 to fit."""

  def turn(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", image.size)
    page.paste(image.resize((24, 24)), (2, 2))
    angle = rng.choice((-1, 1)) * rng.uniform(15, 35)
    return page.rotate(angle, Image.Resampling.BILINEAR)

  return _each(images, turn)


def shrink(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Shrinks to 17 of 28 pixels and puts the digit anywhere on black."""

  def move(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", image.size)
    room = image.width - 17 + 1
    page.paste(image.resize((17, 17)), tuple(rng.integers(room, size=2)))
    return page

  return _each(images, move)


SHIFTS: dict[str, Shift] = {
  "inverted": invert,
  "coloured": colour,
  "textured": texture,
  "noisy": noise,
  "blurred": blur,
  "tilted": tilt,
  "shrunken": shrink,
}
"""Every shift of the scans, by the name it has in the tables."""

TYPESET = 500  # images of the typeset set, about as many as there are scans


def apply(name: str, images: np.ndarray, *, seed: int = 0) -> np.ndarray:
  """Applies the shift called `name`; the same arguments, the same result.

  Args:
    name: A key of `SHIFTS`.
    images: Of type uint8 [n, 28, 28, 3].
    seed: Of the shift's randomness; two shifts never share a stream.

  Returns:
    The shifted images, uint8 of the same shape.

  Raises:
    ValueError: There is no such shift.
  """
  if name not in SHIFTS:
    raise ValueError(f"name must be one of {tuple(SHIFTS)}, got {name!r}.")
  rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
  return SHIFTS[name](images, rng)


def typeset() -> Split:
  """Digits in the five Computer Modern faces, in the styles of pretraining."""
  images, labels, _ = rendered_digits.render(
    seed=zlib.crc32(b"typeset"),
    indices=range(TYPESET),
    fonts=rendered_digits.UNSEEN_FONTS,
  )
  return Split(images, labels, rendered_digits.NAMES)


def out_of_distribution(test: Split) -> dict[str, Split]:
  """The sets that out-of-distribution accuracy is the mean over.

  Args:
    test: Scans that no training step and no choice has seen.

  Returns:
    A shifted copy of `test` per entry of `SHIFTS`, and "typeset".
  """
  sets = {
    name: Split(apply(name, test.images), test.labels, test.class_names)
    for name in SHIFTS
  }
  return sets | {"typeset": typeset()}


def _print(image: np.ndarray, ink: np.ndarray, paper: np.ndarray) -> np.ndarray:
  """Reads a scan's brightness as the ink's coverage of the paper."""
  cover = image.astype(np.float32) / 255
  return np.clip(cover * ink + (1 - cover) * paper, 0, 255).astype(np.uint8)


def _each(
  images: np.ndarray, change: Callable[[Image.Image], Image.Image]
) -> np.ndarray:
  return np.stack([np.asarray(change(Image.fromarray(x))) for x in images])
