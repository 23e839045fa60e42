"""Images that come with captions, several each.

A `CaptionSet` is to captions what an `ImageSet` is to labels. It is read
from a folder and a CSV file, from a prepared TensorFlow data set, or rendered.
It is cut into parts by image: captions of one image never end up in two.
"""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Int

from experiments.data import folders, rendered_digits, tfds_sets
from experiments.data.damage import inside, parsing
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet, Loader, Pixels

_COLUMNS = ["image", "caption"]


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionSet:
  """Images with their captions.

  Attributes:
    images: The images; their labels mean nothing.
    captions: Of each image, at least one.
  """

  images: ImageSet
  captions: tuple[tuple[str, ...], ...]

  @classmethod
  def of(cls, loader: Loader, captions: Sequence[Sequence[str]]) -> Self:
    """All rows of a loader.

    Raises:
      ValueError: If an image has no caption; it is named.
    """
    for row, texts in enumerate(captions):
      if not any(text.strip() for text in texts):
        raise ValueError(f"{loader.name(row)} has no caption: expected one.")
    images = ImageSet.of(loader, np.zeros(len(captions), int), ("image",))
    return cls(images, tuple(tuple(texts) for texts in captions))

  def __len__(self) -> int:
    return len(self.captions)

  def take(self, chosen: Int[np.ndarray, " m"]) -> Self:
    """These images, by index in this order."""
    return dataclasses.replace(
      self,
      images=self.images.take(chosen),
      captions=tuple(self.captions[i] for i in chosen),
    )

  def split(self, held_out: int, *, seed: int) -> tuple[Self, Self]:
    """Cuts the images into training and held-out ones, drawn at random.

    Args:
      held_out: How many images to hold out, with all their captions.
      seed: The same seed makes the same cut.

    Returns:
      Both parts; they keep the order of the set.

    Raises:
      ValueError: If either part would be empty.
    """
    if not 0 < held_out < len(self):
      raise ValueError(
        f"held_out must be 1 to {len(self) - 1} of {len(self)} images, got"
        f" {held_out}."
      )
    order = np.random.default_rng(seed).permutation(len(self))
    held, kept = np.sort(order[:held_out]), np.sort(order[held_out:])
    return self.take(kept), self.take(held)

  def texts(self) -> list[str]:
    """All captions, image by image."""
    return [text for texts in self.captions for text in texts]

  def owners(self) -> Int[np.ndarray, " captions"]:
    """Which image each of `texts` belongs to."""
    return np.repeat(np.arange(len(self)), [len(t) for t in self.captions])


def open_csv(
  file: str | os.PathLike[str],
  *,
  view: View,
  folder: str | os.PathLike[str] | None = None,
) -> CaptionSet:
  """Reads a CSV file with the header ``image,caption`` and a folder of images.

  An image has as many captions as lines name it. A name whose file has another
  extension (a.jpg that was converted to a.webp) is found all the same.

  Args:
    file: The CSV file, in UTF-8.
    view: What to see of every image.
    folder: Where the images are; by default ``images`` beside the file.

  Returns:
    The images in the order in which the file first names them.

  Raises:
    FileNotFoundError: If the file or the folder is absent.
    ValueError: If the header or a line is not as expected, or an image is
      absent; it names the file and the line.
  """
  file = pathlib.Path(file)
  folder = file.parent / "images" if folder is None else pathlib.Path(folder)
  for path, found in ((file, file.is_file()), (folder, folder.is_dir())):
    if not found:
      raise FileNotFoundError(
        f"no {path}: expected a CSV file {file.name} with the columns"
        f" {','.join(_COLUMNS)}, and a folder {folder.name} of images."
      )
  find = _Finder(folder)
  captions: dict[pathlib.Path, list[str]] = {}
  for line, (name, caption) in _rows(file):
    if not name.strip() or not caption.strip():
      raise ValueError(
        f"{file}:{line}: expected an image and a caption, got {name!r} and"
        f" {caption!r}."
      )
    try:
      captions.setdefault(find(name), []).append(caption)
    except ValueError as error:
      raise ValueError(f"{file}:{line}: {error}") from None
  if not captions:
    raise ValueError(f"{file} has a header and no captions.")
  paths = tuple(str(path) for path in captions)
  return CaptionSet.of(Files(paths, view), list(captions.values()))


def open_tfds(
  name: str | os.PathLike[str],
  split: str,
  *,
  view: View,
  data_dir: str | os.PathLike[str] | None = None,
) -> CaptionSet:
  """One split of a prepared TensorFlow data set, such as ``coco_captions``.

  Every record is read once on opening, for its captions.

  Args:
    name: See `experiments.data.tfds_sets.open_images`.
    split: Likewise.
    view: What to see of every image.
    data_dir: Likewise.

  Returns:
    The images in the order of the files.

  Raises:
    ImportError: Without TFDS.
    FileNotFoundError: If the data set is not prepared, or as tfrecord only.
    ValueError: If it has no image and captions, or an image has none.
  """
  records, _ = tfds_sets.open_records(
    name, split, needs=("image", "captions"), data_dir=data_dir
  )
  title = f"captions of {name} {split}"
  captions = tfds_sets.read_each(records, _texts, title)
  loader = tfds_sets.Records(records, view, f"{name} {split}")
  return CaptionSet.of(loader, captions)


def render(count: int, *, seed: int, view: View) -> CaptionSet:
  """The demo's rendered digits, each with its one caption."""
  images, _, captions = rendered_digits.render(seed, range(count))
  loader = Pixels(images, view, origin=f"rendered digits {seed}")
  return CaptionSet.of(loader, [(caption,) for caption in captions])


class _Finder:
  """Finds images by name, whatever their extension is now."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._stems: dict[pathlib.Path, dict[str, list[pathlib.Path]]] = {}

  def __call__(self, name: str) -> pathlib.Path:
    wanted = inside(self._folder, name, "the image")
    if wanted.parent not in self._stems:
      stems = self._stems[wanted.parent] = {}
      if wanted.parent.is_dir():
        for path in folders.image_files(wanted.parent):
          stems.setdefault(path.stem, []).append(path)
    found = self._stems[wanted.parent].get(wanted.stem, [])
    if wanted in found:
      return wanted
    if len(found) != 1:
      others = " and ".join(path.name for path in found)
      raise ValueError(
        f"no image {name!r} in {self._folder}"
        + (f", and either of {others} may be meant." if found else ".")
      )
    return found[0]


def _rows(file: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
  """The lines below the header, with their number."""
  with parsing(file), open(file, encoding="utf-8-sig", newline="") as lines:
    reader = csv.reader(lines, strict=True)
    try:
      header = next(reader, [])
      if [name.strip() for name in header] != _COLUMNS:
        raise ValueError(
          f"{file}:1: expected the header {','.join(_COLUMNS)!r}, got"
          f" {','.join(header)!r}."
        )
      for row in reader:
        if len(row) != len(_COLUMNS):
          raise ValueError(
            f"{file}:{reader.line_num}: expected an image and a caption, got"
            f" {len(row)} values; a caption with commas needs quotes."
          )
        yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
      raise ValueError(f"{file}:{reader.line_num + 1}: {error}.") from None


def _texts(record: Mapping[str, Any]) -> list[str]:
  """The captions of a record: texts, or dictionaries or lists of them."""
  captions = record["captions"]
  if isinstance(captions, Mapping):
    captions = captions["text"]
  texts = [
    caption["text"] if isinstance(caption, Mapping) else caption
    for caption in np.atleast_1d(captions)
  ]
  return [t.decode() if isinstance(t, bytes) else str(t) for t in texts]
