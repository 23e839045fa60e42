"""CIFAR-100-C (and CIFAR-10-C): corrupted test images as NumPy files.

  <root>/<corruption>.npy   uint8 [5 n, 32, 32, 3], severity 1 first
  <root>/labels.npy         [5 n], or [n]

with n = 10,000. Fifteen corruptions are the benchmark and four are extra, meant
for choosing hyperparameters: say which you average over.

References:
  Hendrycks and Dietterich, 2019, https://arxiv.org/abs/1903.12261.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from experiments.data.decode import View
from experiments.data.images import ImageSet, Pixels

BENCHMARK = (
  "gaussian_noise", "shot_noise", "impulse_noise",
  "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
  "snow", "frost", "fog", "brightness",
  "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")

SEVERITIES = (1, 2, 3, 4, 5)


def open_images(
  root: str | os.PathLike[str],
  *,
  corruptions: Literal["benchmark", "all"] | Sequence[str] = "benchmark",
  severities: Sequence[int] = SEVERITIES,
  class_names: Sequence[str] | None = None,
  view: View | None = None,
) -> ImageSet:
  """Every chosen corruption at every chosen severity, as a domain each.

  The files are mapped into memory, not read.

  Args:
    root: The unpacked archive.
    corruptions: "benchmark" is the 15, "all" the 19; or some names.
    severities: Of 1 to 5.
    class_names: What the labels mean; their numbers if None, for the archive
      does not say.
    view: The size to resize to; as they are if None.

  Returns:
    Images with domains such as "fog/3", in the order asked for.

  Raises:
    FileNotFoundError: If a file is missing; it says which.
    ValueError: On an unknown corruption or severity, or a file of another form.
  """
  root = pathlib.Path(root)
  if isinstance(corruptions, str):
    if corruptions not in ("benchmark", "all"):
      raise ValueError(
        f"corruptions must be 'benchmark', 'all' or names, got {corruptions!r}."
      )
    corruptions = BENCHMARK + (EXTRA if corruptions == "all" else ())
  for name in corruptions:
    if name not in BENCHMARK + EXTRA:
      raise ValueError(
        f"corruption must be one of {', '.join(BENCHMARK + EXTRA)}; got"
        f" {name!r}."
      )
  for what, given in (("corruptions", corruptions), ("severities", severities)):
    if not len(given):
      raise ValueError(f"{what} must name at least one, got {given!r}.")
  for severity in severities:
    if severity not in SEVERITIES:
      raise ValueError(f"severity must be 1 to 5, got {severity}.")
  arrays = [_load(root / f"{name}.npy") for name in corruptions]
  sizes = {len(array) for array in arrays}
  total = sizes.pop()
  if sizes or total % 5 or not total:
    raise ValueError(
      f"the files in {root} have {sorted(sizes | {total})} images: expected"
      " five severities of the same number in all of them."
    )
  count = total // 5
  labels = _labels(root / "labels.npy", count)
  shots = [(c, s) for c in range(len(arrays)) for s in severities]
  return ImageSet.of(
    _Rows(arrays, shots, count, tuple(corruptions), view),
    np.tile(labels, len(shots)),
    class_names or tuple(map(str, range(int(labels.max()) + 1))),
    domains=np.repeat(np.arange(len(shots)), count),
    domain_names=[f"{corruptions[c]}/{s}" for c, s in shots],
  )


class _Rows:
  """Rows of several arrays, one block of ``count`` after another."""

  def __init__(self, arrays, shots, count, names, view):
    self._shots, self._count, self.view = shots, count, view
    self._pixels = [
      Pixels(array, view, f"{name}.npy")
      for array, name in zip(arrays, names, strict=True)
    ]

  def _find(self, row: int) -> tuple[Pixels, int]:
    block, within = divmod(row, self._count)
    corruption, severity = self._shots[block]
    return self._pixels[corruption], (severity - 1) * self._count + within

  def read(self, row: int) -> np.ndarray:
    pixels, index = self._find(row)
    return pixels.read(index)

  def load(self, row: int) -> np.ndarray:
    pixels, index = self._find(row)
    return pixels.load(index)

  def name(self, row: int) -> str:
    pixels, index = self._find(row)
    return pixels.name(index)


def _read(path: pathlib.Path) -> np.ndarray:
  try:
    return np.load(path, mmap_mode="r", allow_pickle=False)
  except Exception as error:  # its header is read as Python, which may fail so
    raise ValueError(f"{path} is not a NumPy file: {error!r}.") from None


def _load(path: pathlib.Path) -> np.ndarray:
  if not path.is_file():
    raise FileNotFoundError(
      f"no {path}: expected <root>/<corruption>.npy and <root>/labels.npy."
    )
  array = _read(path)
  if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
    raise ValueError(
      f"{path} is {array.dtype} {list(array.shape)}: expected uint8"
      " [5 n, height, width, 3]."
    )
  return array


def _labels(path: pathlib.Path, count: int) -> np.ndarray:
  """The labels of one severity; they repeat for the others."""
  if not path.is_file():
    raise FileNotFoundError(f"no {path}: expected it beside the corruptions.")
  labels = _read(path)
  if labels.ndim != 1 or labels.dtype.kind not in "iu":
    raise ValueError(
      f"{path} is {labels.dtype} {list(labels.shape)}: expected integers [n]."
    )
  if labels.size and not 0 <= labels.min() <= labels.max() < len(labels):
    raise ValueError(
      f"{path} has labels from {labels.min()} to {labels.max()}: expected 0 or"
      f" more, and fewer than its {len(labels)} images."
    )
  labels = np.array(labels, np.int32)
  if len(labels) not in (count, 5 * count):
    raise ValueError(
      f"{path} has {len(labels)} labels: expected {count} or {5 * count}."
    )
  if not np.array_equal(labels, np.tile(labels[:count], len(labels) // count)):
    raise ValueError(f"{path} differs between severities.")
  return labels[:count]
