"""Labelled images in memory: held out, shuffled, augmented, batched.

Images stay uint8 until they are on the device: a quarter of the bytes to copy,
and the model that knows its own mean and deviation does the arithmetic.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import grain
import numpy as np
from grain import IterDataset, MapDataset
from jaxtyping import Bool, Int, UInt8
from PIL import Image

if TYPE_CHECKING:
  from experiments.data.images import ImageSet

Batch = dict[str, Any]  # image: uint8 [batch, height, width, 3]; label: int32


class Records(Protocol):
  """Random access to labelled images: a split, or an `ImageSet` on disk."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Batch: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Images of one origin with their labels.

  Attributes:
    images: the decoded images.
    labels: indices into ``class_names``.
    class_names: what the labels mean.
  """

  images: UInt8[np.ndarray, "n height width 3"]
  labels: Int[np.ndarray, " n"]
  class_names: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> Batch:
    return {"image": self.images[index], "label": self.labels[index]}

  def take(self, indices: np.ndarray) -> "Split":
    """The split of these images, in this order."""
    return Split(self.images[indices], self.labels[indices], self.class_names)


class Source(NamedTuple):
  """All that a method may see: what it trains on, never a target.

  In memory, or on disk: :attr:`experiments.data.folds.Fold.source` is one.

  Attributes:
    train: what the weights are fitted to.
    validation: what every choice (C of the probe, a stopping point) is made on.
  """

  train: "Split | ImageSet"
  validation: "Split | ImageSet"


def held_out(
  labels: Int[np.ndarray, " n"],
  class_names: Sequence[str],
  *,
  fraction: float,
  seed: int | Sequence[int],
  lone: Literal["error", "train"] = "error",
) -> Bool[np.ndarray, " n"]:
  """Marks a share of every class, drawn at random.

  Args:
    labels: indices into ``class_names``.
    class_names: what they mean, for the error.
    fraction: of each class to mark, in (0, 1); at least one image, and at least
      one stays unmarked.
    seed: the same seed marks the same images.
    lone: what becomes of the only image of a class.

  Returns:
    True where an image is held out.

  Raises:
    ValueError: on a fraction outside (0, 1), or on a class with a single image
      unless ``lone`` keeps it in training.
  """
  if not 0 < fraction < 1:
    raise ValueError(f"fraction must be in (0, 1), got {fraction}.")
  rng = np.random.default_rng(seed)
  held = np.zeros(len(labels), bool)
  for label, name in enumerate(class_names):
    members = rng.permutation(np.flatnonzero(labels == label))
    if len(members) == 1 and lone == "error":
      raise ValueError(f"class {name!r} has one image: nothing to hold out.")
    count = min(max(1, round(fraction * len(members))), len(members) - 1)
    held[members[: max(count, 0)]] = True
  return held


def hold_out(
  images: "Split | ImageSet", *, fraction: float, seed: int
) -> Source:
  """Cuts images into training and validation images, class by class.

  DomainBed draws the 20 % from the whole domain; drawing them per class keeps
  the rare classes of small domains in both parts.

  Args:
    images: those of the source domain, in memory or on disk.
    fraction: of each class to hold out, in (0, 1); at least one image, and at
      least one image stays in training.
    seed: the same seed makes the same cut.

  Returns:
    The two parts; both keep the order of ``images``.

  Raises:
    ValueError: on a fraction outside (0, 1) or a class with a single image.
  """
  held = held_out(
    images.labels, images.class_names, fraction=fraction, seed=seed
  )
  return Source(
    images.take(np.flatnonzero(~held)), images.take(np.flatnonzero(held))
  )


def augment(record: Batch, rng: np.random.Generator) -> Batch:
  """A random resized crop (70 to 100 % of the area) and a horizontal flip.

  The crop and the flip of DomainBed. Its colour jitter and random greyscale are
  left out: they blur the very shift, in texture and colour, under study.
  """
  height, width = record["image"].shape[:2]
  area = height * width * rng.uniform(0.7, 1.0)
  aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
  crop_width = min(np.sqrt(area * aspect), width)
  crop_height = min(np.sqrt(area / aspect), height)
  left = rng.uniform(0, width - crop_width)
  top = rng.uniform(0, height - crop_height)
  image = Image.fromarray(record["image"]).resize(
    (width, height),
    Image.Resampling.BILINEAR,
    box=(left, top, left + crop_width, top + crop_height),
  )
  pixels = np.asarray(image)
  if rng.random() < 0.5:
    pixels = pixels[:, ::-1]
  return {**record, "image": np.ascontiguousarray(pixels)}


def batches(
  split: Records,
  *,
  batch_size: int,
  seed: int,
  augmented: bool = True,
  process: int = 0,
  processes: int = 1,
) -> MapDataset[Batch]:
  """Endless shuffled batches; batch t is a function of the seed and t alone.

  So a run that resumes at step t asks for ``batches[t]`` and sees what the
  uninterrupted run saw, whatever the number of threads that prepare them.

  Args:
    split: the images to draw from, in memory or on disk.
    batch_size: images per batch; a batch may straddle two epochs.
    seed: of the order and of the augmentation.
    augmented: whether to pass every image through :func:`augment`.
    process: which part of every batch to read, of as many as there are
      processes. Together they read what one process would, each image once.
    processes: how many there are; they must divide ``batch_size``.

  Returns:
    A random-access dataset of batches, or of this process' parts of them.

  Raises:
    ValueError: if the processes cannot share a batch evenly.
  """
  records = shuffled(split, seed=seed, augmented=augmented)
  return in_batches(records, batch_size, process=process, processes=processes)


def shuffled(
  split: Records, *, seed: int, augmented: bool
) -> MapDataset[Batch]:
  """Endless images, every epoch in another order; see :func:`batches`."""
  records = MapDataset.source(split).seed(seed).shuffle()
  if augmented:
    records = records.random_map(augment)
  return records.repeat()


def in_batches(
  records: MapDataset[Batch], batch_size: int, *, process: int, processes: int
) -> MapDataset[Batch]:
  """Batches of endless images, or a process' parts; see :func:`batches`."""
  if batch_size % processes or not 0 <= process < processes:
    raise ValueError(
      f"a batch of {batch_size} images cannot be divided evenly among"
      f" {processes} processes, got process {process}."
    )
  if processes > 1:
    records = records.slice(slice(process, None, processes))
  return records.batch(batch_size // processes)


def stream(
  dataset: MapDataset[Batch], start: int, stop: int
) -> IterDataset[Batch]:
  """Batches start to stop − 1 in order, prepared ahead by a few threads."""
  threads = min(16, os.cpu_count() or 1)
  return dataset.slice(slice(start, stop)).to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
  )
