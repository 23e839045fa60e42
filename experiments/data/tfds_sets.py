"""Prepared TensorFlow Datasets, read without TensorFlow.

TFDS reads its `array_record` and `parquet` files by random access and without
TensorFlow, but not `tfrecord`, its default. Prepare a data set once, anywhere,
with

  tfds build imagenet_v2 --file_format=array_record

and give the folder here: ImageNet (`imagenet2012`) and its relatives V2, A, R,
Sketch and LT, `cifar100`, `domainnet/real` and its other domains. Images stay
encoded until they are asked for, and are decoded by the code that decodes
files.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import rich.progress

from experiments.data import imagenet
from experiments.data.damage import MOST_NAMES
from experiments.data.decode import View, decode
from experiments.data.images import ImageSet

_NAME = re.compile(r"[\w./-]{1,200}(:[\d*][\w.*]{0,50})?", re.ASCII)
"""Of a data set of TFDS itself."""

_INSTALL = (
  "tensorflow-datasets is not installed: pip install"
  " 'gmixout-jax[experiments]', or 'tensorflow-datasets array-record'."
)


def open_images(
  name: str | os.PathLike[str],
  split: str,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  present_only: bool = False,
  view: View = imagenet.VIEW,
) -> ImageSet:
  """One split of a prepared data set.

  Every record is read once on opening, for its label; no image is decoded.

  Args:
    name: A name and perhaps a configuration and version ("domainnet/real"), or
      the folder of a prepared version, the one that holds dataset_info.json.
    split: Such as "train", "test" or "train[:98%]".
    data_dir: Where prepared data sets lie; TFDS's own default if None.
    present_only: Whether to count only classes that this split has, and to
      carry which outputs of the head they are. ImageNet-A and -R say "1,000
      classes" and have 200.
    view: What to see of every image.

  Returns:
    The images in the order of the files.

  Raises:
    ImportError: Without TFDS.
    FileNotFoundError: If the data set is not prepared, or as tfrecord only.
    ValueError: If it has no image and label, or its classes have no names that
      differ.
  """
  records, features = open_records(
    name, split, needs=("image", "label"), data_dir=data_dir
  )
  labels = np.array(
    read_each(
      records, lambda record: record["label"], f"labels of {name} {split}"
    ),
    np.int32,
  )
  names = _class_names(name, features["label"])
  outputs = None
  if present_only:
    present, labels = np.unique(labels, return_inverse=True)
    names = tuple(names[c] for c in present)
    outputs = [(int(c),) for c in present]
  return ImageSet.of(
    Records(records, view, f"{name} {split}"), labels, names, outputs=outputs
  )


def _class_names(name: str | os.PathLike[str], label: Any) -> tuple[str, ...]:
  """The names of the classes, which TFDS reads from a file unchecked."""
  count = getattr(label, "num_classes", None)
  if not isinstance(count, int) or not 0 < count <= MOST_NAMES:
    raise ValueError(
      f"{name} must have labels of 1 to {MOST_NAMES} classes, got {count!r}."
    )
  names = tuple(label.names)
  if len(names) != count or len(set(names)) != count:
    raise ValueError(
      f"{name} has {count} classes, and {len(set(names))} different names of"
      f" them in {len(names)} lines: is its file of names damaged?"
    )
  return names


def open_records(
  name: str | os.PathLike[str],
  split: str,
  *,
  needs: Sequence[str],
  data_dir: str | os.PathLike[str] | None = None,
) -> tuple[Any, Any]:
  """The records of one split, their images encoded, and their features.

  Args:
    name: See `open_images`, as for `split`, `data_dir` and the errors.
    split: Likewise.
    needs: The features that a record must have; one of them is "image".
    data_dir: Likewise.
  """
  builder = _builder(name, data_dir)
  features = builder.info.features
  if not set(needs) <= set(features or ()):
    raise ValueError(
      f"{name} has the features {', '.join(features or ())}: expected"
      f" {' and '.join(needs)}."
    )
  import tensorflow_datasets as tfds

  try:
    with _damaged(name):
      records = builder.as_data_source(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
      )
  except NotImplementedError as error:
    raise FileNotFoundError(
      f"{name} is prepared in a form without random access: {_prepare(name)}."
    ) from error
  return records, features


def splits(
  name: str | os.PathLike[str],
  *,
  data_dir: str | os.PathLike[str] | None = None,
) -> tuple[str, ...]:
  """The splits of a prepared data set; errors as of `open_images`."""
  return tuple(_builder(name, data_dir).info.splits)


def version_of(folder: str | os.PathLike[str]) -> pathlib.Path:
  """The newest prepared version in the folder of a data set.

  Args:
    folder: Such as data_dir/cifar100 or data_dir/eurosat/rgb.

  Raises:
    FileNotFoundError: If there is none.
  """
  folder = pathlib.Path(folder)
  found = [path.parent for path in folder.glob("*/dataset_info.json")]
  if not found:
    raise FileNotFoundError(
      f"no <version>/dataset_info.json in {folder}: {_prepare(folder.name)}."
    )

  def number(path: pathlib.Path) -> list[int]:
    return [int(n) if n.isdecimal() else -1 for n in path.name.split(".")]

  return max(found, key=number)


class Records:
  """Encoded images of a TFDS data source."""

  def __init__(self, records: Any, view: View, origin: str):
    self._records, self.view, self._origin = records, view, origin

  def read(self, row: int) -> bytes:
    """The encoded image of a record."""
    with _damaged(self.name(row)):
      return self._records[row]["image"]

  def load(self, row: int) -> np.ndarray:
    """Decodes the image of a record."""
    return decode(self.read(row), self.view, name=self.name(row))

  def name(self, row: int) -> str:
    """The data set, the split and the number of the record."""
    return f"{self._origin}[{row}]"


def read_each[T](
  records: Any, pick: Callable[[Any], T], title: str, *, chunk: int = 1024
) -> list[T]:
  """`pick` of every record; the reader's own threads read them."""
  # 140 GB of ImageNet take minutes: the bar tells that it goes on.
  starts = rich.progress.track(
    range(0, len(records), chunk),
    title,
    transient=True,
    disable=len(records) <= chunk,
  )
  with _damaged(title):
    return [
      pick(record)
      for start in starts
      for record in records.__getitems__(
        range(start, min(start + chunk, len(records)))
      )
    ]


@contextlib.contextmanager
def _damaged(name: str | os.PathLike[str]) -> Iterator[None]:
  """Turns what TFDS and the record reader raise, of any kind, into an error."""
  import tensorflow_datasets as tfds

  try:
    yield
  except NotImplementedError:
    raise
  except tfds.core.DatasetNotFoundError as error:
    raise FileNotFoundError(f"there is no data set {name}.") from error
  except ImportError as error:
    raise ImportError(
      f"{name} cannot be read without {error.name}: {error}."
    ) from None
  except Exception as error:
    raise ValueError(f"{name} is damaged: {error!r}.") from None


def _prepare(name: str | os.PathLike[str]) -> str:
  return f"run tfds build {name} --file_format=array_record, once and anywhere"


def _builder(
  name: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None
) -> Any:
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise ImportError(_INSTALL) from error
  if (pathlib.Path(name) / "dataset_info.json").is_file():
    with _damaged(name):
      return tfds.builder_from_directory(name)
  if os.sep in os.path.normpath(name) and pathlib.Path(name).exists():
    raise FileNotFoundError(
      f"no dataset_info.json in {name}: expected the folder of a prepared"
      " version, such as imagenet_v2/matched-frequency/3.0.0."
    )
  # Others are communities' ("space:name"), for which TFDS asks a network.
  if not _NAME.fullmatch(os.fspath(name)):
    raise ValueError(
      f"name must be the folder of a prepared version, or name/config:1.0.0 as"
      f" far as it is needed, got {os.fspath(name)!r}."
    )
  missing = FileNotFoundError(
    f"{name} is not prepared in {data_dir or 'the default data_dir'}:"
    f" {_prepare(name)}."
  )
  try:
    with _damaged(name):
      builder = tfds.builder(os.fspath(name), data_dir=data_dir)
  except FileNotFoundError:
    raise missing from None
  if not builder.is_prepared():
    raise missing
  return builder
