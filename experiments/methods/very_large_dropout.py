"""Fine-tuning with very large dropout on the penultimate layer."""

import dataclasses
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.data.batches import Batch
from experiments.methods.composition import Trained
from experiments.models.classifier import Classifier, Images


@dataclasses.dataclass(frozen=True)
class VeryLargeDropout(Trained):
  """Drops nine tenths of the features before the head in training.

  Zhang, Bottou, 2024 (https://arxiv.org/abs/2403.00946). Only one layer has
  dropout: Φ(x) ⊙ m / (1 − p), with another mask for each image and unit. All
  else is the other method's, its loss included.

  Attributes:
    rate: p, in [0, 1); the paper has 0.9, and 0.5 for large data sets.
  """

  title: ClassVar[str] = "Very large dropout"
  rate: float = 0.9

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.rate < 1:
      raise ValueError(f"rate must be in [0, 1), got {self.rate}.")

  def loss(
    self, model: Classifier, batch: Batch, key: jax.Array
  ) -> Float[Array, ""]:
    """The other method's loss of the model with dropout."""
    mask_key, loss_key = jax.random.split(key)
    # It has all that a loss reads of a classifier.
    dropped = cast(Classifier, Dropped(model, self.rate, mask_key))
    return self.of.loss(dropped, batch, loss_key)


class Dropped:
  """A classifier with dropout between its features and its head."""

  def __init__(self, model: Classifier, rate: float, key: jax.Array):
    self._model = model
    self._rate = rate
    self._key = key

  def features(self, images: Images) -> Float[Array, "batch width"]:
    """The features, most of them 0."""
    features = self._model.features(images)
    kept = jax.random.bernoulli(self._key, 1 - self._rate, features.shape)
    return jnp.where(kept, features / (1 - self._rate), 0.0)

  def __call__(self, images: Images) -> Float[Array, "batch classes"]:
    """The logits."""
    return self._model.head(self.features(images))

  def __getattr__(self, name: str) -> Any:
    return getattr(self._model, name)
