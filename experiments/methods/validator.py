"""Scores on the validation split, the only data a method may choose by."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from experiments.data import on_devices
from experiments.data.batches import Batch
from experiments.data.images import ImageSet
from experiments.data.split import Split
from experiments.methods.run import Params
from experiments.models.classifier import Classifier
from gmixout_jax import parallel


class Validator:
  """Scores weights on the held-out images of the source domain.

  Attributes:
    evaluations: How often the whole split was scored, for the cost table.
  """

  def __init__(
    self,
    model: Classifier,
    split: Split | ImageSet,
    *,
    batch_size: int = 256,
    mesh: Mesh | None = None,
  ):
    """Takes the model's structure; its weights do not matter.

    Args:
      model: A classifier of the structure of those to be scored.
      split: The validation split. One on disk is decoded once, when it is first
        used: a method that searches reads it many times, most never do.
      batch_size: Images per forward pass and device.
      mesh: From `parallel.data_mesh`: its devices share the images, and all its
        processes must make the same calls.
    """
    self.evaluations = 0
    self._given = split
    self._batch_size = batch_size
    self._mesh = mesh
    self._graphdef, _, self._rest = nnx.split(model, nnx.Param, ...)

  @functools.cached_property
  def _split(self) -> Split:
    given = self._given
    return given.in_memory() if isinstance(given, ImageSet) else given

  @functools.cached_property
  def _chunks(self) -> list[Any]:
    if self._mesh is not None:
      given, labels = self._given, np.asarray(self._given.labels)
      images = given if isinstance(given, ImageSet) else given.images
      size = on_devices.batch_size(len(given), self._batch_size, self._mesh)
      return list(
        zip(
          on_devices.chunks(images, size, self._mesh),
          on_devices.labels(labels, size, self._mesh),
          strict=True,
        )
      )
    split, size = self._split, self._batch_size
    return [
      jax.device_put((split.images[i : i + size], labels))
      for i in range(0, len(split), size)
      for labels in [split.labels[i : i + size]]
    ]

  def accuracy(self, params: Params) -> float:
    """Top-1 accuracy, in [0, 1]."""
    return self._sums(params)[0] / len(self._given)

  def loss(self, params: Params) -> float:
    """Mean cross-entropy."""
    return self._sums(params)[1] / len(self._given)

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

  def _sums(self, params: Params) -> tuple[float, float]:
    self.evaluations += 1
    rest, mesh = self._rest, self._mesh
    if mesh is not None:
      params, rest = parallel.replicate((params, rest), mesh)
    sums = [
      _score(self._graphdef, mesh, params, rest, *chunk)
      for chunk in self._chunks
    ]
    correct, losses = zip(*jax.device_get(sums), strict=True)
    return float(np.sum(correct)), float(np.sum(losses))


# Jitted once for the process, as in `models.evaluation`: runs on one task have
# a validator each.
@functools.partial(jax.jit, static_argnames=("graphdef", "mesh"))
def _score(
  graphdef: Any,
  mesh: Mesh | None,
  params: Params,
  rest: Any,
  images: Array,
  labels: Array,
) -> tuple[Array, Array]:
  """Correct ones and the sum of losses; a label of −1 does not count."""

  def apply(state: Any, images: Array) -> Array:
    return nnx.merge(graphdef, *state)(images)

  spread = apply if mesh is None else parallel.over_examples(apply, mesh)
  logits = spread((params, rest), images)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  if mesh is not None:
    losses = jnp.where(labels >= 0, losses, 0.0)
  return jnp.sum(logits.argmax(-1) == labels), losses.sum()
