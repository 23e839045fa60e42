"""Reads a folder in DomainBed's layout: ``root/<domain>/<class>/<image>``.

PACS, VLCS, OfficeHome, TerraIncognita and DomainNet are distributed this way.
Everything is decoded once into memory as uint8: at 224 pixels PACS takes
1.5 GB. DomainNet (587,000 images) does not fit; read it at a smaller size or
domain by domain.
"""

import concurrent.futures
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from experiments.data.split import Split

EXTENSIONS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".webp"})

_LAYOUT = "expected <root>/<domain>/<class>/<image>"


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
  """The visible folders in a folder, by name."""
  return sorted(
    entry
    for entry in path.iterdir()
    if entry.is_dir() and not entry.name.startswith(".")
  )


def _images(path: pathlib.Path) -> list[pathlib.Path]:
  """The images directly in a folder, by name."""
  return sorted(
    entry
    for entry in path.iterdir()
    if entry.suffix.lower() in EXTENSIONS and not entry.name.startswith(".")
  )


def find(
  root: str | os.PathLike[str],
) -> dict[str, dict[str, list[pathlib.Path]]]:
  """Lists the image files of every class of every domain.

  Args:
    root: the folder that holds one folder per domain.

  Returns:
    domain -> class -> files, all three sorted by name. Every domain has the
    same classes and every class has a file.

  Raises:
    FileNotFoundError: if there is no such folder or no domain in it.
    ValueError: if a domain lacks a class that another one has.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise FileNotFoundError(f"no folder {root}: {_LAYOUT}.")
  found = {
    domain.name: {
      folder.name: files
      for folder in _folders(domain)
      if (files := _images(folder))
    }
    for domain in _folders(root)
  }
  classes = sorted(set().union(*found.values()))
  if not classes:
    raise FileNotFoundError(f"no images in {root}: {_LAYOUT}.")
  for domain, files in found.items():
    if missing := [name for name in classes if name not in files]:
      raise ValueError(
        f"domain {domain!r} in {root} has no images of class"
        f" {', '.join(map(repr, missing))}, which another domain has: {_LAYOUT}"
        " with the same classes in every domain."
      )
  return found


def decode(path: pathlib.Path, image_size: int) -> np.ndarray:
  """One image as uint8 [image_size, image_size, 3].

  The whole image is squeezed into the square, as DomainBed does: a centre crop
  would cut off heads in portraits.

  Raises:
    ValueError: if the file is not a readable image; it names the file.
  """
  try:
    with Image.open(path) as image:
      resized = image.convert("RGB").resize(
        (image_size, image_size), Image.Resampling.BILINEAR
      )
  except (OSError, SyntaxError, ValueError) as error:
    raise ValueError(f"{path} is not a readable image: {error}") from error
  return np.asarray(resized)


def _decode_all(
  paths: Sequence[pathlib.Path], image_size: int, workers: int
) -> np.ndarray:
  """Decodes into one array; threads suffice, for PIL releases the GIL."""
  images = np.empty((len(paths), image_size, image_size, 3), np.uint8)

  def fill(index: int) -> None:
    images[index] = decode(paths[index], image_size)

  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    pending = [pool.submit(fill, index) for index in range(len(paths))]
    try:
      for future in pending:
        future.result()
    except ValueError:
      pool.shutdown(cancel_futures=True)  # the first broken file is enough
      raise
  return images


def read(
  root: str | os.PathLike[str], *, image_size: int, workers: int | None = None
) -> dict[str, Split]:
  """Decodes every domain of a DomainBed folder.

  Args:
    root: the folder that holds one folder per domain.
    image_size: side of the decoded squares, in pixels.
    workers: decoding threads; one per core if None.

  Returns:
    domain -> its images, ordered by class and file name. All share one list of
    classes, so a label means the same everywhere.

  Raises:
    FileNotFoundError: if the folder or its images are missing.
    ValueError: if classes differ between domains or an image is broken.
  """
  workers = workers or os.cpu_count() or 1
  splits = {}
  for domain, classes in find(root).items():
    paths = [path for files in classes.values() for path in files]
    labels = np.repeat(
      np.arange(len(classes), dtype=np.int32),
      [len(files) for files in classes.values()],
    )
    splits[domain] = Split(
      _decode_all(paths, image_size, workers), labels, tuple(classes)
    )
  return splits
