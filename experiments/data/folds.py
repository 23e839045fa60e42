"""Leave-one-domain-out with validation images of the training domains.

The protocol of DomainBed (Gulrajani and Lopez-Paz, 2021,
https://arxiv.org/abs/2007.01434): every domain in turn is the target; a fifth
of each training domain is held out, and rates are chosen by the mean over
training domains of the accuracy there (what a method itself chooses, as a
greedy soup does, by that of all these images). DomainBed reports accuracy on
80 % of the target; here all of it is the target. Unlike DomainBed, a class at a
time is cut, so that rare classes are in both parts.
"""

import dataclasses
import zlib
from typing import NamedTuple

import grain
import numpy as np

from experiments.data.augmentation import Augmentation
from experiments.data.batches import Batch, in_batches, shuffled
from experiments.data.images import ImageSet
from experiments.data.source import Source, held_out


class Fold(NamedTuple):
  """One target domain, and training and validation images of the others.

  Attributes:
    target_name: The domain that is left out of training and validation.
    train: Training images of all other domains.
    validation: Validation images, by domain.
    target: All images of the target.
  """

  target_name: str
  train: ImageSet
  validation: dict[str, ImageSet]
  target: ImageSet

  @property
  def source(self) -> Source:
    """The images that a method may use, validation images of all domains."""
    parts = list(self.validation.values())
    together = dataclasses.replace(
      parts[0],
      rows=np.concatenate([part.rows for part in parts]),
      labels=np.concatenate([part.labels for part in parts]),
      domains=np.concatenate([part.domains for part in parts]),
    )
    return Source(self.train, together)


def leave_out(
  images: ImageSet, target: str, *, fraction: float = 0.2, seed: int
) -> Fold:
  """The fold of one target domain.

  Args:
    images: At least two domains.
    target: The domain to leave out.
    fraction: Of each class of each domain to hold out, in (0, 1). The only
      image of a class stays in training.
    seed: A domain is cut alike whichever other domain is the target.

  Raises:
    ValueError: If there is no such domain, or no other one.
  """
  if len(images.domain_names) < 2:
    raise ValueError(
      f"leaving a domain out needs two, got {', '.join(images.domain_names)}."
    )
  left_out = images.domain(target)
  held = np.zeros(len(images), bool)
  for index, name in enumerate(images.domain_names):
    here = images.domains == index
    held[here] = held_out(
      images.labels[here],
      images.class_names,
      fraction=fraction,
      seed=(seed, zlib.crc32(name.encode())),
      lone="train",
    )
  is_target = images.domains == images.domain_names.index(target)
  validation = images.take(held & ~is_target)
  return Fold(
    target,
    images.take(~held & ~is_target),
    {
      name: validation.domain(name)
      for name in images.domain_names
      if name != target
    },
    left_out,
  )


def balanced_batches(
  images: ImageSet,
  *,
  batch_size: int,
  seed: int,
  augment: Augmentation = "basic",
  process: int = 0,
  processes: int = 1,
) -> grain.MapDataset[Batch]:
  """Endless batches that take images of every domain in turn.

  A batch has as many of each, if their number divides the batch; DomainBed has
  32 of each. Otherwise they differ by one, and not always in favour of the
  same. Batch t is a function of the seed and t alone.

  Args:
    images: Of several domains, such as a fold's ``train``.
    batch_size: Images per batch, of all domains that have any.
    seed: Of the order and the augmentation.
    augment: What is done to every image.
    process: See `experiments.data.batches.batches`.
    processes: Likewise.

  Returns:
    A random-access dataset of batches, or of this process' parts of them.

  Raises:
    ValueError: If the processes cannot share a batch evenly.
  """
  streams = [
    shuffled(
      domain, seed=zlib.crc32(f"{seed}/{name}".encode()), augment=augment
    )
    for name, domain in images.by_domain().items()
    if len(domain)
  ]
  records = grain.MapDataset.mix(streams)
  return in_batches(records, batch_size, process=process, processes=processes)
