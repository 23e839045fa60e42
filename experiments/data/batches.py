"""Batches of images, shuffled and augmented: a function of seed and step."""

from typing import Any, Protocol

import grain
import numpy as np
from absl import flags
from grain import IterDataset, MapDataset

from experiments.data import workers
from experiments.data.augmentation import POLICIES, Augmentation, Policy

Batch = dict[str, Any]  # image: uint8 [batch, height, width, 3]; label: int32


class Records(Protocol):
  """Random access to labelled images: a split, or an `ImageSet` on disk."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Batch:
    """An image as evaluation sees it."""
    ...

  def drawn(
    self, index: int, policy: Policy, rng: np.random.Generator
  ) -> Batch:
    """An image as training sees it, augmented."""
    ...


def batches(
  split: Records,
  *,
  batch_size: int,
  seed: int,
  augment: Augmentation = "basic",
  process: int = 0,
  processes: int = 1,
) -> MapDataset[Batch]:
  """Endless shuffled batches; batch t is a function of the seed and t alone.

  So a run that resumes at step t asks for ``batches[t]`` and sees what the
  uninterrupted run saw, whatever the number of threads that prepare them.

  Args:
    split: The images to draw from, in memory or on disk.
    batch_size: Images per batch; a batch may straddle two epochs.
    seed: Of the order and of the augmentation.
    augment: What is done to every image, see
      `experiments.data.augmentation`.
    process: Which part of every batch to read, of as many as there are
      processes. Together they read what one process would, each image once.
    processes: How many there are; they must divide ``batch_size``.

  Returns:
    A random-access dataset of batches, or of this process' parts of them.

  Raises:
    ValueError: If the processes cannot share a batch evenly.
  """
  records = shuffled(split, seed=seed, augment=augment)
  return in_batches(records, batch_size, process=process, processes=processes)


def shuffled(
  split: Records, *, seed: int, augment: Augmentation
) -> MapDataset[Batch]:
  """Endless images, every epoch in another order; see `batches`."""
  # Of numbers, so that the image is read when it is known how.
  order = MapDataset.range(len(split)).seed(seed).shuffle()
  if augment == "none":
    return order.map(split.__getitem__).repeat()
  policy = POLICIES[augment]
  return order.random_map(
    lambda index, rng: split.drawn(index, policy, rng)
  ).repeat()


def in_batches(
  records: MapDataset[Batch], batch_size: int, *, process: int, processes: int
) -> MapDataset[Batch]:
  """Batches of endless images, or a process' parts; see `batches`."""
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
  """Batches start to stop − 1 in order, prepared ahead by those who decode.

  Each thread prepares a batch of its own. So as many batches as there are
  threads, and two, are held in all.
  """
  threads, processes = workers.chosen().resolved()
  ahead = threads + 2
  prepared = dataset.slice(slice(start, stop)).to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
  )
  if processes and not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's own, which it asks for
  return prepared.mp_prefetch(grain.MultiprocessingOptions(processes))
