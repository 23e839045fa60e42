"""FLYP: fine-tune like you pretrain, with CLIP's contrastive loss."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from experiments.data.batches import Batch
from experiments.data.source import Source
from experiments.methods.method import Method, Params, Schedule
from experiments.models.classifier import Classifier, Prompts
from gmixout_jax.clip.model import normalize


@dataclasses.dataclass(frozen=True)
class FLYP(Method):
  """Trains both towers on images and the prompts of their classes.

  Goyal et al., 2023 (https://arxiv.org/abs/2212.00638). The loss is that of
  pretraining: CLIP's contrastive loss or SigLIP's sigmoid loss over the images
  and prompts of a batch. Images of one class remain each other's negatives. The
  zero-shot head is built anew from the tuned text tower at the end.

  Attributes:
    learning_rate: The peak, for all weights, the logit scale included.
    weight_decay: Of AdamW, on every parameter; the authors have 0.1.
  """

  title: ClassVar[str] = "FLYP"
  learning_rate: float = 1e-4
  weight_decay: float = 0.0

  def prepare(
    self, model: Classifier, data: Source, key: jax.Array
  ) -> Classifier:
    """The model beside its text tower.

    Raises:
      ValueError: If the classifier has no prompts.
    """
    del data, key
    if model.prompts is None:
      raise ValueError(
        "FLYP trains a text tower with the image tower, so the classifier must"
        " come from a CLIP and have prompts; this one's backbone is a"
        f" {type(model.backbone).__name__} without. full_finetuning trains any."
      )
    return TwoTowers(model, model.prompts)

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """AdamW on both towers; the old head rests."""
    del params, key
    towers = schedule.make_optimizer(
      self.learning_rate, weight_decay=self.weight_decay
    )
    return optax.partition(
      {"towers": towers, "head": optax.set_to_zero()}, _labels
    )

  def trains(self, params: Params) -> Any:
    """All but the old head."""
    return jax.tree.map(lambda label: label != "head", _labels(params))

  def takes_soft_labels(self) -> bool:
    """No: a label decides which prompt matches an image."""
    return False

  def loss(
    self, model: Classifier, batch: Batch, key: jax.Array
  ) -> Float[Array, ""]:
    """The contrastive loss, with a prompt drawn for each image."""
    images = model.features(batch["image"])
    towers: Any = model
    texts, scale = towers.embed(batch["label"], key), towers.logit_scale[...]
    if towers.logit_bias is not None:
      return sigmoid_loss(images, texts, scale, towers.logit_bias[...])
    return contrastive_loss(images, texts, scale)

  def export(self, model: Classifier) -> Classifier:
    """A classifier with the zero-shot head of the tuned text tower.

    Its prompts hold that tower, so that it is saved too.
    """
    assert isinstance(model, TwoTowers)
    return Classifier(
      model.backbone,
      _word_head(model),
      mean=model.mean,
      std=model.std,
      prompts=model.tuned_prompts(),
    )


def _labels(params: Params) -> Any:
  return {
    name: jax.tree.map(
      lambda leaf: "head" if name == "head" else "towers",  # noqa: B023
      part,
    )
    for name, part in params.items()
  }


def contrastive_loss(
  images: Float[Array, "batch dim"],
  texts: Float[Array, "batch dim"],
  log_scale: Float[Array, ""],
) -> Float[Array, ""]:
  """The mean of both cross-entropies of exp(log_scale) · images · textsᵀ."""
  logits = jnp.exp(log_scale) * (images @ texts.T)
  right = jnp.arange(len(images))
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  return 0.5 * (
    cross_entropy(logits, right).mean() + cross_entropy(logits.T, right).mean()
  )


def sigmoid_loss(
  images: Float[Array, "batch dim"],
  texts: Float[Array, "batch dim"],
  log_scale: Float[Array, ""],
  bias: Float[Array, ""],
) -> Float[Array, ""]:
  """−log σ(±(exp(log_scale) · images · textsᵀ + bias)), + on the diagonal.

  Summed over pairs and divided by the batch: SigLIP's loss (Zhai et al., 2023,
  https://arxiv.org/abs/2303.15343).
  """
  logits = jnp.exp(log_scale) * (images @ texts.T) + bias
  sign = 2 * jnp.eye(len(images)) - 1
  return -jax.nn.log_sigmoid(sign * logits).sum() / len(images)


class TwoTowers(Classifier):
  """A classifier beside the text tower that its head came from.

  Attributes:
    text: The text tower.
    text_projection: To the space shared with images.
    logit_scale: The logarithm of what multiplies cosines.
    logit_bias: What is added to them; None of a CLIP.
  """

  def __init__(self, model: Classifier, prompts: Prompts):
    super().__init__(
      model.backbone,
      model.head.kernel[...],
      mean=model.mean,
      std=model.std,
      prompts=prompts,
    )
    self.text = prompts.model.text
    self.text_projection = prompts.model.text_projection
    self.logit_scale = prompts.model.logit_scale
    self.logit_bias = prompts.model.logit_bias

  def embed(
    self, labels: Array, key: jax.Array
  ) -> Float[Array, "batch projection_dim"]:
    """Unit embeddings of a random prompt for each label."""
    tokens = jnp.asarray(self._prompts.token_ids)
    drawn = jax.random.randint(key, labels.shape, 0, tokens.shape[1])
    features = self.text.features(tokens[labels, drawn])
    return normalize(self.text_projection(features))

  def word_head(self) -> Float[Array, "projection_dim classes"]:
    """As `clip.zero_shot_head`, scaled, from the towers in training."""
    tokens = self._prompts.token_ids
    classes, templates, length = tokens.shape
    flat = tokens.reshape(-1, length)
    embeddings = normalize(self.text_projection(self.text.features(flat)))
    by_class = embeddings.reshape(classes, templates, -1).mean(axis=1)
    return normalize(by_class).T * jnp.exp(self.logit_scale[...])

  def tuned_prompts(self) -> Prompts:
    """The same words with the tuned towers."""
    whole = self._prompts.model
    encoder: Any = self.backbone
    tuned = {
      "vision": encoder.vision,
      "vision_projection": encoder.projection,
      "text": self.text,
      "text_projection": self.text_projection,
    }
    params = {
      name: _params(module)
      for name, module in tuned.items()
      if module is not None
    }
    params["logit_scale"] = self.logit_scale[...]
    if self.logit_bias is not None:
      params["logit_bias"] = self.logit_bias[...]
    model = nnx.merge(nnx.graphdef(whole), params)
    return dataclasses.replace(self._prompts, model=model)

  @property
  def _prompts(self) -> Prompts:
    assert self.prompts is not None
    return self.prompts


def _params(module: nnx.Module) -> Any:
  return nnx.to_pure_dict(nnx.state(module, nnx.Param))


@nnx.jit
def _word_head(model: TwoTowers) -> Array:
  return model.word_head()
