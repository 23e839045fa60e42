"""Batches of images and captions, one caption of each image at a time."""

import dataclasses

import numpy as np
from grain import MapDataset
from jaxtyping import Int

from experiments.data.batches import Batch, augment
from experiments.data.images import ImageSet


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """Random access to images, or to what a tower made of them, and captions.

  Item i is ``{"image": ..., "tokens": int32 [captions, length]}``.

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
    images = self.images
    image = images[index]
    if isinstance(images, ImageSet):
      image = image["image"]
    first, last = np.searchsorted(self.owners, (index, index + 1))
    return {"image": image, "tokens": self.token_ids[first:last]}

  def batches(
    self, *, batch_size: int, seed: int, augmented: bool = True
  ) -> MapDataset[Batch]:
    """Endless shuffled batches; batch t is a function of the seed and t alone.

    In every epoch one caption of each image is drawn, and one view of it.

    Args:
      batch_size: Pairs per batch, at most the number of images.
      seed: Of the order and of what is drawn.
      augmented: Whether pixels are cropped and flipped at random. Features have
        the views that they have.

    Returns:
      A random-access dataset of ``{"image", "tokens"}``, one caption each.

    Raises:
      ValueError: If there are fewer images than a batch holds: an image would
        be among its own negatives.
    """
    self.check_batch_size(batch_size)
    pairs = MapDataset.source(self).seed(seed).shuffle().random_map(_draw)
    if not isinstance(self.images, ImageSet):
      pairs = pairs.random_map(_draw_view)
    elif augmented:
      pairs = pairs.random_map(augment)
    return pairs.repeat().batch(batch_size)

  def check_batch_size(self, batch_size: int) -> None:
    """Raises the error of `batches`, for before something takes long."""
    if not 1 <= batch_size <= len(self):
      raise ValueError(
        f"batch_size must be 1 to {len(self)}, the number of images, got"
        f" {batch_size}."
      )


def _draw(record: Batch, rng: np.random.Generator) -> Batch:
  tokens = record["tokens"]
  return {**record, "tokens": tokens[rng.integers(len(tokens))]}


def _draw_view(record: Batch, rng: np.random.Generator) -> Batch:
  views = record["image"]
  return {**record, "image": views[rng.integers(len(views))]}
