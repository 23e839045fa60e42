"""Batches of images, shuffled and augmented: a function of seed and step."""

import os
from typing import Any, Literal, Protocol

import grain
import numpy as np
from grain import IterDataset, MapDataset
from PIL import Image

Batch = dict[str, Any]  # image: uint8 [batch, height, width, 3]; label: int32

Augmentation = Literal["none", "basic"]


class Records(Protocol):
  """Random access to labelled images: a split, or an `ImageSet` on disk."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Batch: ...


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
