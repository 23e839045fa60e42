"""Label smoothing, mixup and CutMix, traced in the step.

Zhang et al., 2017 (https://arxiv.org/abs/1710.09412): an image becomes
λ x + (1 − λ) x', and its label likewise, with λ ~ Beta(α, α). Yun et al., 2019
(https://arxiv.org/abs/1905.04899): a box of a share 1 − λ of the image is cut
out of x' and laid over x; where it sticks out it is cut off, and the labels
follow the pixels that are left of it.

One λ and one box for all images of a step: a function of the key and the step,
so equal on all devices and for all micro-batches. Image i is mixed with the
last but i, as in timm: a batch is in random order anyway, and however processes
and devices share it, the same images meet.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.data.batches import Batch
from experiments.tasks.recipe import Recipe

_OWN = 2**32 - 1  # no number of a device or a micro-batch: see `key_of`


def key_of(key: jax.Array) -> jax.Array:
  """The key of the mixing, from that of the step."""
  return jax.random.fold_in(key, _OWN)


def with_partners(batch: Batch) -> Batch:
  """The whole batch of a step, each image beside the one it is mixed with.

  Done before the batch is cut up. Images are sent to other devices as bytes.

  Args:
    batch: `image` and `label`.

  Returns:
    With `partner_image` and `partner_label` besides.
  """
  flipped = {
    f"partner_{name}": jnp.flip(batch[name], axis=0)
    for name in ("image", "label")
  }
  return batch | flipped


def soften(batch: Batch, recipe: Recipe, key: jax.Array, classes: int) -> Batch:
  """A batch with labels that are distributions, and perhaps mixed images.

  Args:
    batch: Of `with_partners` if images are to be mixed; or a part of it.
    recipe: With label smoothing, mixup or CutMix.
    key: From `key_of`.
    classes: How many there are.

  Returns:
    `image`, float32 in [0, 1] if mixed, and `label`, float32 [batch, classes],
    whose rows sum to 1.
  """
  labels = smooth(batch["label"], recipe.label_smoothing, classes)
  if not recipe.mixes:
    return {"image": batch["image"], "label": labels}
  image = as_floats(batch["image"])
  taken, share = draw(key, recipe, (image.shape[1], image.shape[2]))
  taken = taken[None, :, :, None]
  partner = as_floats(batch["partner_image"])
  other = smooth(batch["partner_label"], recipe.label_smoothing, classes)
  return {
    "image": (1 - taken) * image + taken * partner,
    "label": (1 - share) * labels + share * other,
  }


def smooth(
  labels: Array, smoothing: float, classes: int
) -> Float[Array, "batch classes"]:
  """One-hot labels, of which a share is spread evenly over all classes.

  Example:
    >>> smooth(jnp.array([1]), 0.5, 2).tolist()
    [[0.25, 0.75]]
  """
  hot = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
  if not smoothing:
    return hot
  return (1 - smoothing) * hot + smoothing / classes


def as_floats(images: Array) -> Array:
  """Images on the scale [0, 1], float32."""
  if jnp.issubdtype(images.dtype, jnp.integer):
    return images.astype(jnp.float32) / 255
  return images.astype(jnp.float32)


def draw(
  key: jax.Array, recipe: Recipe, size: tuple[int, int]
) -> tuple[Float[Array, "height width"], Float[Array, ""]]:
  """How much of an image and of a label is the partner's.

  Args:
    key: From `key_of`.
    recipe: With mixup, CutMix or both.
    size: Height and width of the images.

  Returns:
    The share of each pixel: 1 − λ everywhere, or 1 in the box and 0 outside;
    and the share of the label, the mean of the pixels'.
  """
  choice_key, weight_key, box_key = jax.random.split(key, 3)
  both: Any = (
    jax.random.bernoulli(choice_key)
    if recipe.mixup and recipe.cutmix
    else recipe.cutmix > 0
  )
  alpha = jnp.where(both, recipe.cutmix, recipe.mixup).astype(jnp.float32)
  weight = 1 - jax.random.beta(weight_key, alpha, alpha, dtype=jnp.float32)
  box = draw_box(box_key, weight, size)
  pixels = jnp.where(both, box, weight)
  return pixels, jnp.where(both, box.mean(), weight)


def draw_box(
  key: jax.Array, share: Float[Array, ""], size: tuple[int, int]
) -> Float[Array, "height width"]:
  """1 in a box of about a share of the image, 0 outside.

  Args:
    key: Of the centre, uniform over the image.
    share: In [0, 1]: of the box before what sticks out is cut off.
    size: Height and width.
  """

  def inside(key: jax.Array, length: int) -> Array:
    half = jnp.floor(length * jnp.sqrt(share)).astype(jnp.int32) // 2
    centre = jax.random.randint(key, (), 0, length)
    at = jnp.arange(length)
    return (at >= centre - half) & (at < centre + half)

  row_key, column_key = jax.random.split(key)
  rows, columns = inside(row_key, size[0]), inside(column_key, size[1])
  return (rows[:, None] & columns[None, :]).astype(jnp.float32)
