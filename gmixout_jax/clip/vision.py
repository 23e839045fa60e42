"""The vision transformer: CLIP's image tower and timm's plain ViT in one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from gmixout_jax.clip import layers
from gmixout_jax.clip.config import VisionConfig

Pixels = (
  Float[Array, "batch height width channels"]
  | Float[np.ndarray, "batch height width channels"]
)

_normal = jax.nn.initializers.truncated_normal


class ViT(nnx.Module):
  """A vision transformer (Dosovitskiy et al., 2021) with a class token.

  One code for two families: CLIP's image tower normalises before the first
  block, has no patch bias and no head; a plain ViT is the other way round.

  Example:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from gmixout_jax import clip
    >>> config = clip.VisionConfig.vit(
    ...   image_size=16, patch_size=8, width=8, depth=1, heads=2, mlp_width=16,
    ...   num_classes=5,
    ... )
    >>> model = nnx.jit(lambda: clip.ViT(config, rngs=nnx.Rngs(0)))()
    >>> pixels = jnp.zeros((2, 16, 16, 3))
    >>> features, logits = nnx.jit(
    ...   lambda model, pixels: (model.features(pixels), model(pixels))
    ... )(model, pixels)
    >>> features.shape, logits.shape
    ((2, 8), (2, 5))

  References:
    Dosovitskiy et al., An Image is Worth 16x16 Words, 2021,
    https://arxiv.org/abs/2010.11929
  """

  def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
    width, patch = config.width, config.patch_size
    tokens = 1 + (config.image_size // patch) ** 2
    self.config = config
    self.patch_embedding = nnx.Conv(
      config.channels,
      width,
      (patch, patch),
      strides=(patch, patch),
      padding="VALID",
      use_bias=config.patch_bias,
      dtype=config.dtype,
      param_dtype=config.param_dtype,
      rngs=rngs,
    )
    draw, dtype = _normal(0.02), jnp.dtype(config.param_dtype)
    self.class_embedding = nnx.Param(draw(rngs.params(), (width,), dtype))
    self.position_embedding = nnx.Param(
      draw(rngs.params(), (tokens, width), dtype)
    )
    self.pre_norm = (
      layers.layer_norm(config, rngs=rngs) if config.pre_norm else None
    )
    self.blocks = layers.make_blocks(config, causal=False, rngs=rngs)
    self.norm = layers.layer_norm(config, rngs=rngs)
    self.head = (
      nnx.Linear(
        width,
        config.num_classes,
        # Of one token, so it costs nothing; a loss needs all of its digits.
        dtype=jnp.promote_types(config.dtype, jnp.float32),
        param_dtype=config.param_dtype,
        kernel_init=_normal(0.02),
        rngs=rngs,
      )
      if config.num_classes
      else None
    )

  def tokens(self, pixels: Pixels) -> Float[Array, "batch tokens width"]:
    """The output of the last block, before the final norm.

    Args:
      pixels: Normalised images (see `clip.preprocess`), channels last.

    Returns:
      The class token first, then the patches row by row.

    Raises:
      ValueError: The pixels have another shape or an integer type.
    """
    config = self.config
    self._check(pixels)
    x = self.patch_embedding(jnp.asarray(pixels))
    x = x.reshape(len(x), -1, config.width)
    first = self.class_embedding[...].astype(x.dtype)
    first = jnp.broadcast_to(first, (len(x), 1, config.width))
    x = jnp.concatenate([first, x], axis=1)
    x = x + self.position_embedding[...].astype(x.dtype)[None]
    if self.pre_norm is not None:
      x = self.pre_norm(x)
    return layers.run_blocks(self.blocks, x, remat=config.remat)

  def features(self, pixels: Pixels) -> Float[Array, "batch width"]:
    """The class token after the final norm; see `tokens` for the rest."""
    # The norm works per token, so the others need not be normalised.
    return self.norm(self.tokens(pixels)[:, 0])

  def __call__(self, pixels: Pixels) -> Float[Array, "batch outputs"]:
    """The head's logits, in at least float32; without a head, the features."""
    x = self.features(pixels)
    return x if self.head is None else self.head(x)

  def _check(self, pixels: Pixels) -> None:
    size = self.config.image_size
    wanted = (size, size, self.config.channels)
    if pixels.ndim != 4 or pixels.shape[1:] != wanted:
      raise ValueError(
        f"pixels must have shape [batch, {size}, {size}, "
        f"{self.config.channels}], got {list(pixels.shape)}."
      )
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
      raise ValueError(
        f"pixels must be normalised floats, got {pixels.dtype}; "
        f"see clip.preprocess."
      )


def resize_positions(
  embedding: Float[Array, "tokens width"] | Float[np.ndarray, "tokens width"],
  grid: int,
) -> Float[Array, "new_tokens width"]:
  """Interpolates a class token and g x g patch positions to another grid.

  Bicubic, with antialiasing when the grid shrinks: timm's choice. (DINO's
  own code and Hugging Face do not antialias and use another cubic; the
  difference matters only before fine-tuning.) The class token is kept.

  Args:
    embedding: Position embeddings, the class token's first.
    grid: The new number of patches along a side, at least 1.

  Returns:
    1 + grid² embeddings; the given ones, untouched, if the grid is the same.

  Raises:
    ValueError: The patches do not form a square, or `grid` is below 1.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax.clip import vision
    >>> vision.resize_positions(jnp.ones((1 + 4, 8)), grid=3).shape
    (10, 8)
  """
  tokens, width = embedding.shape
  old = math.isqrt(max(tokens - 1, 0))
  if tokens < 2 or old * old != tokens - 1:
    raise ValueError(
      f"position embeddings must be a class token and a square of patches, "
      f"got {tokens} tokens."
    )
  if grid < 1:
    raise ValueError(f"grid must be at least 1, got {grid}.")
  if grid == old:
    return jnp.asarray(embedding)
  embedding = jnp.asarray(embedding)
  patches = embedding[1:].reshape(old, old, width).astype(jnp.float32)
  patches = jax.image.resize(
    patches, (grid, grid, width), method="bicubic", antialias=True
  )
  patches = patches.reshape(grid * grid, width).astype(embedding.dtype)
  return jnp.concatenate([embedding[:1], patches])
