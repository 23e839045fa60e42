"""Batches of images and captions, one caption of each image at a time."""

import dataclasses

import numpy as np
from grain import MapDataset
from jaxtyping import Int

from experiments.data.augmentation import Policy
from experiments.data.batches import Batch, shuffled
from experiments.data.images import ImageSet


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """Random access to images, or to what a tower made of them, and captions.

  Item i is ``{"image": ..., "tokens": int32 [captions, length]}``, or with one
  caption where it is drawn.

  Attributes:
    images: Pixels on disk, or features: views of each image along axis 1.
    token_ids: Of all captions, image by image.
    owners: Which image each caption belongs to, ascending.
  """

  images: ImageSet | np.ndarray
  token_ids: Int[np.ndarray, "captions length"]
  owners: Int[np.ndarray, " captions"]

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, index: int) -> Batch:
    image = self.images[index]
    if isinstance(self.images, ImageSet):
      image = image["image"]
    return {"image": image, "tokens": self._tokens(index)}

  def drawn(
    self, index: int, policy: Policy, rng: np.random.Generator
  ) -> Batch:
    """Pixels augmented, or one view of the features; and one caption."""
    tokens = self._tokens(index)
    tokens = tokens[rng.integers(len(tokens))]
    if isinstance(self.images, ImageSet):
      image = self.images.drawn(index, policy, rng)["image"]
    else:
      views = self.images[index]
      image = views[rng.integers(len(views))]
    return {"image": image, "tokens": tokens}

  def _tokens(self, index: int) -> Int[np.ndarray, "captions length"]:
    first, last = np.searchsorted(self.owners, (index, index + 1))
    return self.token_ids[first:last]

  def batches(self, *, batch_size: int, seed: int) -> MapDataset[Batch]:
    """Endless shuffled batches; batch t is a function of the seed and t alone.

    In every epoch one caption of each image is drawn, and one view of it: of
    pixels the augmentation "basic", of features one that they have.

    Args:
      batch_size: Pairs per batch, at most the number of images.
      seed: Of the order and of what is drawn.

    Returns:
      A random-access dataset of ``{"image", "tokens"}``, one caption each.

    Raises:
      ValueError: If there are fewer images than a batch holds: an image would
        be among its own negatives.
    """
    self.check_batch_size(batch_size)
    records = shuffled(self, seed=seed, augment="basic")
    return records.batch(batch_size)

  def check_batch_size(self, batch_size: int) -> None:
    """Raises the error of `batches`, for before something takes long."""
    if not 1 <= batch_size <= len(self):
      raise ValueError(
        f"batch_size must be 1 to {len(self)}, the number of images, got"
        f" {batch_size}."
      )
