"""A linear head on any backbone: the one model the experiments train."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num

from gmixout_jax import clip
from gmixout_jax.clip.model import normalize

Images = Num[Array, "batch height width channels"]


class Backbone(Protocol):
  """What a backbone must offer besides being an NNX module."""

  def features(self, pixels: Array, /) -> Array:
    """Maps normalised pixels [batch, h, w, 3] to features [batch, width]."""
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class Prompts:
  """The prompts of the classes, for methods that train the text tower too.

  Equal where all that they hold is, bit for bit: they are part of a model's
  structure, by which jax knows whether it has compiled a step for it already.

  Attributes:
    model: The CLIP of the classifier, which nobody changes.
    token_ids: Each class in each template.
    tokenizer: The folder of the tokenizer that made these, if known.
    kernel: Of the zero-shot head, if the classifier has another head.
  """

  model: clip.CLIP
  token_ids: Int[np.ndarray, "classes templates length"]
  tokenizer: pathlib.Path | None = None
  kernel: Float[Array, "width classes"] | None = None

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Prompts) and self._content == other._content

  def __hash__(self) -> int:
    return hash(self._content[-1])

  @functools.cached_property
  def _content(self) -> tuple[Any, ...]:
    structure, weights = nnx.split(self.model)
    found = hashlib.blake2b()
    for leaf in jax.tree.leaves((weights, self.token_ids, self.kernel)):
      array = np.asarray(leaf)
      found.update(f"{array.dtype}{array.shape}".encode())
      found.update(array.tobytes())
    return structure, self.tokenizer, found.digest()


class Classifier(nnx.Module):
  """Logits = features(normalised pixels) · kernel + bias.

  The backbone's parameters are under `backbone/`, the head's are `head/kernel`
  and `head/bias`; methods select them by these names.

  Attributes:
    backbone: What maps pixels to features.
    head: The linear layer.
    mean: Of the backbone's training pixels, per channel, on the scale [0, 1].
    std: Likewise.
    prompts: Of the zero-shot head, if there is one; not trained here.

  Example:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from gmixout_jax import clip
    >>> config = clip.VisionConfig.vit(
    ...   image_size=16, patch_size=8, width=8, depth=1, heads=2, mlp_width=16,
    ...   num_classes=0,
    ... )
    >>> vit = clip.ViT(config, rngs=nnx.Rngs(0))
    >>> model = Classifier.with_zero_head(vit, width=8, classes=3)
    >>> model(jnp.zeros((2, 16, 16, 3), jnp.uint8)).shape
    (2, 3)
  """

  def __init__(
    self,
    backbone: Backbone,
    kernel: Float[ArrayLike, "width classes"],
    bias: Float[ArrayLike, " classes"] | None = None,
    *,
    mean: Sequence[float] = clip.HALF,
    std: Sequence[float] = clip.HALF,
    prompts: Prompts | None = None,
  ):
    self.backbone = backbone
    self.head = linear(kernel, bias)
    self.mean = tuple(mean)
    self.std = tuple(std)
    self.prompts = prompts

  @classmethod
  def with_zero_head(
    cls,
    backbone: Backbone,
    *,
    width: int,
    classes: int,
    mean: Sequence[float] = clip.HALF,
    std: Sequence[float] = clip.HALF,
  ) -> Self:
    """A classifier with a head of zeros: all logits are 0."""
    return cls(backbone, jnp.zeros((width, classes)), mean=mean, std=std)

  def features(self, images: Images) -> Float[Array, "batch width"]:
    """The backbone's features of uint8 images, or of floats in [0, 1]."""
    pixels = clip.preprocess(images, mean=self.mean, std=self.std)
    return self.backbone.features(pixels)

  def __call__(self, images: Images) -> Float[Array, "batch classes"]:
    """The logits of uint8 images, or of floats in [0, 1]."""
    return self.head(self.features(images))


class Ensemble(nnx.Module):
  """The mean of the logits of several classifiers, at the cost of all.

  Attributes:
    models: At least one.
  """

  def __init__(self, models: Sequence[Classifier]):
    self.models = nnx.List(models)

  def __call__(self, images: Images) -> Float[Array, "batch classes"]:
    """The mean logits of uint8 images, or of floats in [0, 1]."""
    logits = [model(images) for model in self.models]
    return jnp.mean(jnp.stack(logits), axis=0)


class ClipImageEncoder(nnx.Module):
  """CLIP without its text tower: a backbone of unit-length embeddings.

  With `clip.zero_shot_head(..., scaled=True)` as the kernel, a `Classifier` on
  it starts as the zero-shot classifier, logit scale included:

    kernel = clip.zero_shot_head(model, tokenizer, names, scaled=True)
    classifier = Classifier(
      ClipImageEncoder(model), kernel, mean=clip.CLIP_MEAN, std=clip.CLIP_STD
    )

  Its arrays are the model's own, not copies.

  Attributes:
    vision: The image tower.
    projection: To the space shared with texts; no bias. None of a SigLIP, whose
      features lie there.
  """

  def __init__(self, model: clip.CLIP):
    self.vision = model.vision
    self.projection = model.vision_projection

  def features(self, pixels: Images) -> Float[Array, "batch projection_dim"]:
    """What `model.encode_image` computes of normalised pixels."""
    features = self.vision.features(pixels)
    if self.projection is not None:
      features = self.projection(features)
    return normalize(features)


def linear(
  kernel: Float[ArrayLike, "width classes"],
  bias: Float[ArrayLike, " classes"] | None = None,
) -> nnx.Linear:
  """A linear layer of given weights; the bias is 0 if None."""
  width, classes = jnp.shape(kernel)
  zeros = jax.nn.initializers.zeros
  layer = nnx.Linear(width, classes, kernel_init=zeros, rngs=nnx.Rngs(0))
  layer.kernel = nnx.Param(jnp.asarray(kernel))
  if bias is not None:
    layer.bias = nnx.Param(jnp.asarray(bias))
  return layer
