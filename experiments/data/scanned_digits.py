"""Real scanned digits: the task the demo fine-tunes on.

Scikit-learn ships 1,797 handwritten digits of 8x8 pixels (from the UCI
"Optical Recognition of Handwritten Digits" test set: 13 writers, scanned
forms). They are enlarged three times and centred, light on dark, in the size
that the demo's CLIP reads.
"""

import numpy as np
from PIL import Image
from sklearn import datasets

from experiments.data import rendered_digits
from experiments.data.split import Split

SIZE = rendered_digits.SIZE

_INNER = 24  # 3 x 8; leaves the margin that digits have in rendered images


def load() -> dict[str, Split]:
  """Loads the digits, split once and for all.

  Returns:
    `"train"` (60 %, 1,078 images), `"validation"` (15 %, 270) and `"test"`
    (25 %, 449): disjoint, together every digit. The split is a permutation
    with a fixed seed, so every run and every seed sees the same one.
  """
  pixels, target = datasets.load_digits(return_X_y=True)
  grey = np.asarray(pixels).reshape(-1, 8, 8) * (255 / 16)
  images = np.stack([_enlarge(image) for image in grey])
  labels = np.asarray(target, np.int32)
  order = np.random.default_rng(0).permutation(len(labels))
  ends = np.round(np.array([0.60, 0.75]) * len(labels)).astype(int)
  parts = np.split(order, ends)
  return {
    name: Split(images[part], labels[part], rendered_digits.NAMES)
    for name, part in zip(("train", "validation", "test"), parts, strict=True)
  }


def _enlarge(grey: np.ndarray) -> np.ndarray:
  """From float [8, 8] to uint8 [28, 28, 3]."""
  small = Image.fromarray(grey.astype(np.uint8))
  large = np.asarray(small.resize((_INNER, _INNER), Image.Resampling.BICUBIC))
  margin = (SIZE - _INNER) // 2
  return np.repeat(np.pad(large, margin)[..., None], 3, axis=-1)
