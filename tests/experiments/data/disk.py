"""Tiny data sets in the formats that the real ones have on disk."""

import csv
import io
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from PIL import Image

SIZE = 12

IDS = ("n01440764", "n01443537", "n01484850", "n01491361", "n01494475")


def picture(path: pathlib.Path, value: int) -> pathlib.Path:
  """Writes an image of one brightness, by which tests recognise it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (SIZE + 4, SIZE), (value, value, value)).save(
    path, format="PNG"
  )
  return path


def tree(root: pathlib.Path, counts: dict[str, int]) -> pathlib.Path:
  """<root>/<class>/<image>; image j of class c has brightness 20 c + j."""
  for c, (name, count) in enumerate(counts.items()):
    for j in range(count):
      picture(root / name / f"{j}.JPEG", 20 * c + j)
  return root


def objectnet(root: pathlib.Path) -> pathlib.Path:
  """Three folders, two of which ImageNet has, one under two names."""
  for value, folder in enumerate(("clock", "mug", "unknown_thing")):
    path = root / "images" / folder / "a.png"
    path.parent.mkdir(parents=True)
    inner = Image.new("RGB", (SIZE, SIZE), (50 * value,) * 3)
    framed = Image.new("RGB", (SIZE + 4, SIZE + 4), (255, 0, 0))
    framed.paste(inner, (2, 2))
    framed.save(path)
  mappings = root / "mappings"
  mappings.mkdir()
  texts = {
    "folder_to_objectnet_label.json": {
      "clock": "Alarm clock",
      "mug": "Mug",
      "unknown_thing": "Thing",
    },
    "objectnet_to_imagenet_1k.json": {
      "Alarm clock": "analog clock; digital clock",
      "Mug": "coffee mug",
    },
    # The two orders of ImageNet's classes differ, as they really do.
    "pytorch_to_imagenet_2012_id.json": {"0": 2, "1": 0, "2": 1, "3": 3},
  }
  for name, content in texts.items():
    (mappings / name).write_text(json.dumps(content))
  (mappings / "imagenet_to_label_2012_v2").write_text(
    "digital clock\ncoffee mug\nanalog clock\nfish\n"
  )
  return root


def cifar_c(
  root: pathlib.Path, names: tuple[str, ...], count: int = 4
) -> pathlib.Path:
  """Row i of severity s of corruption c is 40 c + 5 s + i."""
  root.mkdir(parents=True, exist_ok=True)
  labels = np.arange(count) % 3
  for c, name in enumerate(names):
    values = [
      40 * c + 5 * severity + i
      for severity in range(1, 6)
      for i in range(count)
    ]
    images = np.empty((5 * count, 8, 8, 3), np.uint8)
    images[:] = np.array(values)[:, None, None, None]
    np.save(root / f"{name}.npy", images)
  np.save(root / "labels.npy", np.tile(labels, 5))
  return root


def iwildcam(root: pathlib.Path, rows: list[tuple]) -> pathlib.Path:
  """Rows are split, file, label and location."""
  root.mkdir(parents=True, exist_ok=True)
  with open(root / "metadata.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(
      ["", "split", "filename", "y", "location_remapped", "datetime"]
    )
    for number, (split, name, label, place) in enumerate(rows):
      writer.writerow([number, split, name, label, place, "2013-06-05"])
      picture(root / "train" / name, 10 * number)
  return root


def tfds(
  folder: pathlib.Path,
  counts: Mapping[str, int],
  *,
  names: Sequence[str] = ("a", "b", "c", "d"),
  labels: Sequence[int] = (1, 3),
) -> pathlib.Path:
  """A data set as TFDS prepares it: array_record files and their metadata.

  Image i of a split has brightness 30 i, modulo 256, and the labels in turn.
  The version's folder, <folder>/1.0.0, is returned.
  """
  import tensorflow_datasets

  core, features = tensorflow_datasets.core, tensorflow_datasets.features

  class Brightness(core.GeneratorBasedBuilder, skip_registration=True):
    """Images of one brightness."""

    VERSION = core.Version("1.0.0")
    url_infos: ClassVar[dict] = {}  # nothing to download

    def _info(self):
      return self.dataset_info_from_configs(
        features=features.FeaturesDict(
          {
            "image": features.Image(shape=(None, None, 3)),
            "label": features.ClassLabel(names=list(names)),
          }
        ),
        disable_shuffling=True,
        homepage="https://example.org",
        description="Images of one brightness.",
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {
        split: self._generate_examples(count) for split, count in counts.items()
      }

    def _generate_examples(self, count):
      for i in range(count):
        image = encoded(30 * i % 256)
        yield i, {"image": image, "label": labels[i % len(labels)]}

  builder = Brightness(data_dir=folder, file_format="array_record")
  builder.download_and_prepare()
  target = folder / "1.0.0"
  shutil.move(builder.data_path, target)
  shutil.rmtree(folder / "brightness")
  return target


def encoded(value: int) -> bytes:
  """The content of a file with an image of one brightness."""
  file = io.BytesIO()
  Image.new("RGB", (10, 8), (value, value, value)).save(file, "png")
  return file.getvalue()
