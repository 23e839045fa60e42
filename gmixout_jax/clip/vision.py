"""The vision transformer, in all the forms that pretrained ones have."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from gmixout_jax.clip import layers
from gmixout_jax.clip.config import VisionConfig
from gmixout_jax.clip.pooling import AttentionPool

Pixels = (
  Float[Array, "batch height width channels"]
  | Float[np.ndarray, "batch height width channels"]
)

_normal = jax.nn.initializers.truncated_normal


class ViT(nnx.Module):
  """A vision transformer (Dosovitskiy et al., 2021).

  One code for all families: CLIP's image tower normalises before the first
  block, has no patch bias and no head; a plain ViT is the other way round;
  DINOv2 has LayerScale and perhaps registers; SigLIP has no class token and
  pools by attention. `VisionConfig` says which.

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

    def drawn(*shape: int) -> nnx.Param:
      dtype = jnp.dtype(config.param_dtype)
      return nnx.Param(_normal(0.02)(rngs.params(), shape, dtype))

    self.class_embedding = drawn(width) if config.class_token else None
    self.position_embedding = drawn(config.placed + config.grid**2, width)
    self.registers = (
      drawn(config.registers, width) if config.registers else None
    )
    self.pre_norm = (
      layers.layer_norm(config, rngs=rngs) if config.pre_norm else None
    )
    self.blocks = layers.make_blocks(config, causal=False, rngs=rngs)
    self.norm = layers.layer_norm(config, rngs=rngs)
    self.pool = (
      AttentionPool(config, rngs=rngs) if config.pool == "attention" else None
    )
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
      The class token first, if there is one, then registers, then the patches
      row by row.

    Raises:
      ValueError: The pixels have another shape or an integer type.
    """
    config = self.config
    self._check(pixels)
    x = self.patch_embedding(jnp.asarray(pixels))
    x = x.reshape(len(x), -1, config.width)
    prefix = self._prefix(x.dtype)
    x = _in_front(prefix[: config.placed], x)
    x = x + self.position_embedding[...].astype(x.dtype)[None]
    if config.placed < config.prefix:
      placed, patches = x[:, : config.placed], x[:, config.placed :]
      x = _in_front(prefix[config.placed :], patches)
      x = jnp.concatenate([placed, x], axis=1)
    if self.pre_norm is not None:
      x = self.pre_norm(x)
    return layers.run_blocks(self.blocks, x, remat=config.remat)

  def features(self, pixels: Pixels) -> Float[Array, "batch width"]:
    """The image's features: the tokens, pooled and normalised.

    Args:
      pixels: As for `tokens`.
    """
    config, x = self.config, self.tokens(pixels)
    if config.pool == "class":
      # The norm works per token, so the others need not be normalised.
      return self.norm(x[:, 0])
    x = x[:, config.prefix :]
    if not config.norm_pooled:
      x = self.norm(x)
    if self.pool is not None:
      return self.pool(x)
    if config.pool == "max":
      x = x.max(axis=1)
    else:
      wide = jnp.promote_types(x.dtype, jnp.float32)
      x = x.mean(axis=1, dtype=wide).astype(x.dtype)
    return self.norm(x) if config.norm_pooled else x

  def __call__(self, pixels: Pixels) -> Float[Array, "batch outputs"]:
    """The head's logits, in at least float32; without a head, the features."""
    x = self.features(pixels)
    return x if self.head is None else self.head(x)

  def _prefix(self, dtype: Any) -> Float[Array, "prefix width"]:
    """The learned tokens before the patches."""
    learned = [jnp.zeros((0, self.config.width), dtype)]
    if self.class_embedding is not None:
      learned.append(self.class_embedding[...].astype(dtype)[None])
    if self.registers is not None:
      learned.append(self.registers[...].astype(dtype))
    return jnp.concatenate(learned)

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


def _in_front(
  learned: Float[Array, "prefix width"], x: Float[Array, "batch tokens width"]
) -> Float[Array, "batch more_tokens width"]:
  """Tokens that are the same for all images, before the others."""
  first = jnp.broadcast_to(learned, (len(x), *learned.shape))
  return jnp.concatenate([first, x], axis=1)


def resize_positions(
  embedding: Float[Array, "tokens width"] | Float[np.ndarray, "tokens width"],
  grid: int,
  *,
  prefix: int = 1,
) -> Float[Array, "new_tokens width"]:
  """Interpolates positions of g x g patches to another grid.

  Bicubic, with antialiasing when the grid shrinks: timm's choice. (DINO's
  own code and Hugging Face do not antialias and use another cubic; the
  difference matters only before fine-tuning.) Other tokens are kept.

  Args:
    embedding: Position embeddings, those of other tokens first.
    grid: The new number of patches along a side, at least 1.
    prefix: How many other tokens there are: one, the class token, by default.

  Returns:
    prefix + grid² embeddings; the given ones, untouched, if the grid is the
    same.

  Raises:
    ValueError: The patches do not form a square, or `grid` is below 1.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax.clip import vision
    >>> vision.resize_positions(jnp.ones((1 + 4, 8)), grid=3).shape
    (10, 8)
  """
  tokens, width = embedding.shape
  old = math.isqrt(max(tokens - prefix, 0))
  if tokens <= prefix or old * old != tokens - prefix:
    others = {0: "", 1: "a class token and "}.get(
      prefix, f"{prefix} tokens and "
    )
    raise ValueError(
      f"position embeddings must be {others}a square of patches, got {tokens}"
      " tokens."
    )
  if grid < 1:
    raise ValueError(f"grid must be at least 1, got {grid}.")
  if grid == old:
    return jnp.asarray(embedding)
  embedding = jnp.asarray(embedding)
  patches = embedding[prefix:].reshape(old, old, width).astype(jnp.float32)
  patches = jax.image.resize(
    patches, (grid, grid, width), method="bicubic", antialias=True
  )
  patches = patches.reshape(grid * grid, width).astype(embedding.dtype)
  return jnp.concatenate([embedding[:prefix], patches])
