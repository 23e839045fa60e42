"""What a method may choose by: the validation split, and nothing else."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from experiments.data.batches import Batch
from experiments.data.images import ImageSet
from experiments.data.split import Split
from experiments.methods.run import Params
from experiments.models.classifier import Classifier


class Judge:
  """Scores weights on the held-out images of the source domain.

  Attributes:
    evaluations: How often the whole split was scored: a cost of methods that
      search.
  """

  def __init__(
    self, model: Classifier, split: Split | ImageSet, *, batch_size: int = 256
  ):
    """Takes the model's structure; its weights do not matter.

    Args:
      model: A classifier of the structure of those to be judged.
      split: The validation split. One on disk is decoded once, when it is first
        looked at: a method that searches looks many times, most never do.
      batch_size: Images per forward pass.
    """
    self.evaluations = 0
    self._given = split
    self._batch_size = batch_size
    self._graphdef, _, self._rest = nnx.split(model, nnx.Param, ...)
    self._score = jax.jit(self._score_chunk)

  @functools.cached_property
  def _split(self) -> Split:
    given = self._given
    return given.in_memory() if isinstance(given, ImageSet) else given

  @functools.cached_property
  def _chunks(self) -> list[Any]:
    split, size = self._split, self._batch_size
    return [
      jax.device_put((split.images[i : i + size], labels))
      for i in range(0, len(split), size)
      for labels in [split.labels[i : i + size]]
    ]

  def accuracy(self, params: Params) -> float:
    """Top-1 accuracy, in [0, 1]."""
    return self._sums(params)[0] / len(self._split)

  def loss(self, params: Params) -> float:
    """Mean cross-entropy."""
    return self._sums(params)[1] / len(self._split)

  def objective(
    self, params: Params, scale: Array, batch: Batch
  ) -> Float[Array, ""]:
    """Mean cross-entropy of scaled logits on a batch; to be differentiated."""
    logits = scale * self._logits(params, batch["image"])
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits, batch["label"]
    )
    return losses.mean()

  def batches(self, *, batch_size: int, epochs: int) -> Iterator[Batch]:
    """Shuffled batches of equal size; what does not fill one is left out."""
    size = min(batch_size, len(self._split))
    rng = np.random.default_rng(0)
    for _ in range(epochs):
      order = rng.permutation(len(self._split))
      for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield {
          "image": self._split.images[chosen],
          "label": self._split.labels[chosen],
        }

  def _logits(self, params: Params, images: Array) -> Array:
    return nnx.merge(self._graphdef, params, self._rest)(images)

  def _score_chunk(self, params: Params, images: Array, labels: Array):
    logits = self._logits(params, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.sum(logits.argmax(-1) == labels), losses.sum()

  def _sums(self, params: Params) -> tuple[float, float]:
    self.evaluations += 1
    sums = [self._score(params, *chunk) for chunk in self._chunks]
    correct, losses = zip(*jax.device_get(sums), strict=True)
    return float(np.sum(correct)), float(np.sum(losses))
