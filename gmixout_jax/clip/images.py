"""From stored images to what a tower expects."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

# Of OpenAI's training images; nearly every CLIP keeps them.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Of ImageNet: DeiT, DINO and most of timm.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# From [0, 1] to [−1, 1]: augreg.
HALF = (0.5, 0.5, 0.5)


def preprocess(
  images: ArrayLike,
  *,
  mean: Sequence[float] = CLIP_MEAN,
  std: Sequence[float] = CLIP_STD,
  dtype: DTypeLike = "float32",
) -> Float[Array, "*batch height width channels"]:
  """Normalises images: (x − mean) / std per channel, for x in [0, 1].

  Resizing and cropping are left to the data pipeline.

  Args:
    images: uint8 in [0, 255], or floats in [0, 1]; channels last.
    mean: One value per channel, on the scale [0, 1].
    std: One value per channel, on the scale [0, 1].
    dtype: The type of the result.

  Returns:
    The normalised images, of the same shape.

  Raises:
    ValueError: The images have another type or number of channels, or (NumPy
      arrays) floats leave [0, 1] by so much that they were not scaled.

  Example:
    >>> import numpy as np
    >>> from gmixout_jax import clip
    >>> white = np.full((1, 2, 2, 3), 255, np.uint8)
    >>> float(clip.preprocess(white, mean=clip.HALF, std=clip.HALF).max())
    1.0
  """
  x = images if isinstance(images, jax.Array) else np.asarray(images)
  if len(mean) != len(std) or x.ndim < 3 or x.shape[-1] != len(mean):
    raise ValueError(
      f"images must have shape [..., height, width, channels] and mean and "
      f"std one value per channel, got {list(x.shape)}, {len(mean)} and "
      f"{len(std)} values."
    )
  if x.dtype != np.uint8 and not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"images must be uint8 or floats, got {x.dtype}.")
  # A little beyond is what bicubic resizing does to sharp edges.
  if isinstance(x, np.ndarray) and x.dtype != np.uint8 and x.size:
    low, high = float(x.min()), float(x.max())
    if low < -1 or high > 2:
      raise ValueError(f"float images must lie in [0, 1], got [{low}, {high}].")
  scale = 255.0 if x.dtype == np.uint8 else 1.0
  x = jnp.asarray(x).astype(jnp.float32) / scale
  shape = (1,) * (x.ndim - 1) + (len(mean),)
  center = jnp.asarray(mean, jnp.float32).reshape(shape)
  spread = jnp.asarray(std, jnp.float32).reshape(shape)
  return ((x - center) / spread).astype(dtype)
