"""Image files, for `fuzz`: decoded whole, and drawn from."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from experiments.data.augmentation import POLICIES
from experiments.data.decode import View, decode
from experiments.reliability import mutations
from experiments.reliability.reader import Path, Reader


def _image(suffix: str, mode: str = "RGB") -> Callable[[Path], None]:
  def make(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3))
    image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    image.save(folder / f"image.{suffix}")

  return make


def _seen(folder: Path) -> Any:
  (path,) = folder.iterdir()
  drawn = POLICIES["inception"].drawn(
    str(path), (8, 8), np.random.default_rng(0), border=0, name=str(path)
  )
  return decode(path, View(8, "crop")), drawn


def _is_seen(found: Any) -> bool:
  return all(p.dtype == np.uint8 and p.shape == (8, 8, 3) for p in found)


READERS: tuple[Reader, ...] = tuple(
  Reader(
    f"image, {suffix}, {mode}",
    _image(suffix, mode),
    "image.*",
    mutations.of_bytes,
    _seen,
    _is_seen,
  )
  for suffix, mode in (
    *(("png", "RGB"), ("jpg", "RGB"), ("webp", "RGB"), ("tif", "RGB")),
    *(("bmp", "RGB"), ("png", "LA"), ("jpg", "CMYK")),
  )
)
