"""Where images with captions can come from, as the command line names it."""

import dataclasses
import pathlib
from typing import Annotated

import tyro

from experiments.data import captions
from experiments.data.captions import CaptionSet
from experiments.data.decode import View


@dataclasses.dataclass(frozen=True)
class Folder:
  """A folder `images` and a CSV file with the header image,caption.

  Attributes:
    root: Where both are.
    file: The CSV file.
    images: The folder of images.
  """

  root: pathlib.Path
  file: str = "captions.txt"
  images: str = "images"

  def open(self, view: View) -> CaptionSet:
    """Reads the captions; decodes nothing."""
    return captions.open_csv(
      self.root / self.file, folder=self.root / self.images, view=view
    )


@dataclasses.dataclass(frozen=True)
class Tfds:
  """A prepared TensorFlow data set with captions.

  Attributes:
    name: Its name, or the folder of a prepared version.
    split: Which part of it.
    data_dir: Where prepared data sets lie.
  """

  name: str = "coco_captions"
  split: str = "train"
  data_dir: pathlib.Path | None = None

  def open(self, view: View) -> CaptionSet:
    """Reads the captions; decodes nothing."""
    return captions.open_tfds(
      self.name, self.split, data_dir=self.data_dir, view=view
    )


@dataclasses.dataclass(frozen=True)
class Digits:
  """The demo's rendered digits, 28 pixels wide unless they are resized.

  Attributes:
    count: How many to render.
    sequence: Which of the renderer's endless sequences.
  """

  count: int = 10_000
  sequence: int = 0

  def open(self, view: View) -> CaptionSet:
    """Renders them."""
    return captions.render(self.count, seed=self.sequence, view=view)


Source = (
  Annotated[Folder, tyro.conf.subcommand("folder")]
  | Annotated[Tfds, tyro.conf.subcommand("tfds")]
  | Annotated[Digits, tyro.conf.subcommand("digits")]
)
