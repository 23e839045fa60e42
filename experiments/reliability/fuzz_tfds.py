"""Prepared TensorFlow data sets, for `fuzz`."""

import contextlib
import io
import shutil
from collections.abc import Callable
from random import Random
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from PIL import Image

from experiments.data import tfds_sets
from experiments.data.decode import View
from experiments.reliability import mutations
from experiments.reliability.reader import Path, Reader

_VERSION = "1.0.0"


def _prepare(folder: Path) -> None:
  """Six images of two of three classes, as `tfds build` leaves them."""

  class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images of one brightness."""

    VERSION = tfds.core.Version(_VERSION)
    # Nothing is downloaded.
    url_infos: ClassVar[dict[str, Any]] = {}  # pyright: ignore

    def _info(self) -> Any:
      return self.dataset_info_from_configs(
        features=tfds.features.FeaturesDict(
          {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
          }
        ),
        disable_shuffling=True,
        description="Images of one brightness.",
      )

    def _split_generators(self, dl_manager: Any) -> Any:
      del dl_manager
      return {"train": self._generate_examples()}

    def _generate_examples(self) -> Any:
      for i in range(6):
        encoded = io.BytesIO()
        Image.new("RGB", (9, 8), (30 * i,) * 3).save(encoded, "png")
        yield i, {"image": encoded.getvalue(), "label": i % 2}

  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder = Small(data_dir=folder / "made", file_format="array_record")
    builder.download_and_prepare()
  shutil.move(builder.data_path, folder / _VERSION)
  shutil.rmtree(folder / "made")


def _opened(folder: Path) -> Any:
  version = tfds_sets.version_of(folder)
  images = {
    split: tfds_sets.open_images(version, split, view=View(8))
    for split in tfds_sets.splits(version)
  }
  return [(one, list(one.chunks(4))) for one in images.values()]


def _are_images(found: Any) -> bool:
  return all(
    len(images) > 0
    and 0 <= images.labels.min() <= images.labels.max() < 3
    and len(set(images.class_names)) == 3
    and sum(map(len, chunks)) == len(images)
    for images, chunks in found
  )


def _reader(
  what: str, files: str, damage: Callable[[bytes, Random], bytes]
) -> Reader:
  return Reader(f"TFDS, {what}", _prepare, files, damage, _opened, _are_images)


READERS: tuple[Reader, ...] = (
  _reader("dataset_info.json", "*/dataset_info.json", mutations.of_json),
  _reader("features.json", "*/features.json", mutations.of_json),
  _reader("names of labels", "*/label.labels.txt", mutations.of_lines),
  _reader("records", "*/*array_record*", mutations.of_bytes),
)
