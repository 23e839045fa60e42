"""Lists, tables and folders of images, for `fuzz`."""

import csv
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from experiments.data import (
  captions,
  cifar_c,
  domainbed,
  imagenet,
  iwildcam,
  listing,
  long_tail,
  objectnet,
)
from experiments.data.decode import View
from experiments.reliability import mutations
from experiments.reliability.reader import Path, Reader
from experiments.tasks import user_images

_VIEW = View(8, "crop")
_BYTES, _JSON, _LINES = (
  mutations.of_bytes,
  mutations.of_json,
  mutations.of_lines,
)


def _photos(folder: Path) -> None:
  for name in ("0.png", "1.png"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9)).save(folder / name)


def _table(name: str, *rows: tuple[Any, ...]) -> Callable[[Path], None]:
  def make(folder: Path) -> None:
    _photos(folder)
    _photos(folder / "images")
    _photos(folder / "train")
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
      csv.writer(file).writerows(rows)

  return make


def _is_listed(found: listing.Listing) -> bool:
  named = len(found.files) == len(found.labels) > 0 and all(found.labels)
  return named and all(file.is_file() for file in found.files)


def _below(folder: Path, found: Any) -> bool:
  return all(
    folder.resolve() in pathlib.Path(path).resolve().parents
    for path in found.loader.paths
  )


def _arrays(folder: Path) -> None:
  np.save(folder / "fog.npy", np.zeros((10, 4, 4, 3), np.uint8))
  np.save(folder / "labels.npy", np.tile([0, 1], 5))


def _corrupted(folder: Path) -> Any:
  return cifar_c.open_images(folder, corruptions=["fog"])


def _is_labelled(found: Any) -> bool:
  count = len(found.class_names)
  return (
    len(found) > 0 and 0 <= found.labels.min() <= found.labels.max() < count
  )


def _mappings(folder: Path) -> None:
  for name, value in (
    ("folder_to_objectnet_label.json", {"cup": "Cup", "dog": "Dog"}),
    ("objectnet_to_imagenet_1k.json", {"Cup": "cup; mug", "Dog": "dog"}),
    ("pytorch_to_imagenet_2012_id.json", {"0": 0, "1": 1, "2": 2}),
  ):
    (folder / name).write_text(json.dumps(value))
  (folder / "imagenet_to_label_2012_v2").write_text("cup\nmug\ndog\n")


def _words(folder: Path) -> None:
  (folder / "words.txt").write_text("n00000001 cat, puss\nn00000002 dog\n")


def _read_words(folder: Path) -> Any:
  return imagenet.words(
    folder / "words.txt", imagenet.head_classes(folder / "words.txt")
  )


def _long_tail(folder: Path) -> None:
  _photos(folder)
  (folder / "list.txt").write_text("0.png 0\n1.png 1\n")


def _tree(*classes: str) -> Callable[[Path], None]:
  """Folders of classes, in a folder of their own."""

  def make(folder: Path) -> None:
    for name in classes:
      _photos(folder / "root" / name)

  return make


def _holds_images(found: Any) -> bool:
  """Whether a set is of files that can be opened, and labels that there are."""
  paths = [pathlib.Path(path) for path in found.loader.paths]
  labelled = np.bincount(found.labels, minlength=len(found.class_names))
  named = all(map(str.strip, found.left_out))
  return (
    _is_labelled(found)
    and named
    and labelled.sum() == len(paths)
    and all(path.is_file() and not path.name.startswith(".") for path in paths)
  )


def _folder(
  name: str,
  make: Callable[[Path], None],
  read: Callable[[Path], Any],
  levels: int = 2,
) -> Reader:
  """Folders `levels` deep, whose names are damaged, and no file in them."""

  def checked(folder: Path) -> Any:
    root = folder / "root"
    found = read(root)
    reported = any("no regular file" in sentence for sentence in found.left_out)
    if not reported and (passed := list(_odd(root, levels))):
      raise AssertionError(f"passed over without a word: {passed}")
    return found

  return Reader(
    name,
    make,
    "root/**/*",
    _BYTES,
    checked,
    _holds_images,
    disturb=lambda folder, rng: mutations.of_folder(folder / "root", rng),
  )


def _odd(folder: Path, levels: int) -> Iterator[Path]:
  """What is neither a file nor a folder, so deep below one."""
  for path in folder.iterdir():
    if path.name.startswith("."):
      continue
    if path.is_dir():
      if levels > 1:
        yield from _odd(path, levels - 1)
    elif not path.is_file():
      yield path


READERS: tuple[Reader, ...] = (
  _folder(
    "class folders", _tree("cat", "dog"),
    lambda root: user_images.labelled(listing.read(root), _VIEW),
  ),
  _folder(
    "DomainBed, folders", _tree("art/cat", "art/dog", "photo/cat", "photo/dog"),
    lambda root: domainbed.open_images(root, view=_VIEW), levels=3,
  ),
  _folder(
    "ImageNet, folders", _tree("n01440764", "n01443537"),
    lambda root: imagenet.tree(root, view=_VIEW),
  ),
  _folder(
    "ImageNet-V2, folders", _tree("0", "1"),
    lambda root: imagenet.v2(root, view=_VIEW),
  ),
  Reader(
    "labels in a CSV",
    _table("labels.csv", ("file", "label"), ("0.png", "a"), ("1.png", "b")),
    "labels.csv", _LINES,
    lambda folder: listing.read(folder / "labels.csv"), _is_listed,
  ),
  Reader(
    "captions",
    _table("captions.csv", ("image", "caption"), ("0.png", "a"),
           ("1.png", "b")),
    "captions.csv", _LINES,
    lambda folder: (folder, captions.open_csv(
      folder / "captions.csv", view=_VIEW).images),
    lambda found: _below(*found),
  ),
  Reader(
    "iWildCam, metadata.csv",
    _table("metadata.csv", ("split", "filename", "y", "location_remapped"),
           ("train", "0.png", 0, 0), ("test", "1.png", 1, 1)),
    "metadata.csv", _LINES,
    lambda folder: (folder, next(iter(
      iwildcam.open_images(folder, view=_VIEW).values()))),
    lambda found: _below(*found),
  ),
  Reader(
    "ImageNet-LT, list", _long_tail, "list.txt", _LINES,
    lambda folder: (folder, long_tail.open_list(
      folder / "list.txt", root=folder, view=_VIEW)),
    lambda found: _below(*found),
  ),
  Reader("ObjectNet, mappings", _mappings, "*.json", _JSON, objectnet.overlap,
         lambda found: isinstance(found, dict)),
  Reader("ImageNet, words", _words, "words.txt", _LINES, _read_words,
         lambda found: all(isinstance(word, str) for word in found)),
  Reader("CIFAR-C, arrays", _arrays, "*.npy", _BYTES, _corrupted, _is_labelled),
)  # fmt: skip
