"""CLIP: an image tower and a text tower that meet in one unit sphere."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from gmixout_jax.clip.config import CLIPConfig, TowerConfig
from gmixout_jax.clip.text import TextTransformer
from gmixout_jax.clip.vision import Pixels, ViT


def normalize(x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
  """Scales vectors to unit length, in at least float32."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class CLIP(nnx.Module):
  """Contrastive language-image pre-training (Radford et al., 2021).

  logits[i, j] = exp(logit_scale) ⟨image_i, text_j⟩, where image_i and text_j
  are the projected features of the towers, scaled to unit length. SigLIP (Zhai
  et al., 2023) adds logit_bias to them and does not project the image's.

  `CLIP(config, rngs=...)` is a fresh model to train; `clip.from_pretrained`
  reads a trained one.

  Example:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from gmixout_jax import clip
    >>> tower = dict(width=8, depth=1, heads=2, mlp_width=16)
    >>> config = clip.CLIPConfig(
    ...   vision=clip.VisionConfig(image_size=16, patch_size=8, **tower),
    ...   text=clip.TextConfig(vocab_size=10, eos_token_id=9, **tower),
    ...   projection_dim=4,
    ... )
    >>> model = nnx.jit(lambda: clip.CLIP(config, rngs=nnx.Rngs(0)))()
    >>> pixels, texts = jnp.zeros((3, 16, 16, 3)), jnp.array([[8, 1, 9]])
    >>> logits = nnx.jit(lambda model, *inputs: model(*inputs))
    >>> logits(model, pixels, texts).shape
    (3, 1)

  References:
    Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, 2021, https://arxiv.org/abs/2103.00020
  """

  def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs):
    self.config = config
    self.vision = ViT(config.vision, rngs=rngs)
    self.text = TextTransformer(config.text, rngs=rngs)

    def projection(tower: TowerConfig, use_bias: bool) -> nnx.Linear:
      return nnx.Linear(
        tower.width,
        config.projection_dim,
        use_bias=use_bias,
        dtype=tower.dtype,
        param_dtype=tower.param_dtype,
        kernel_init=jax.nn.initializers.truncated_normal(tower.width**-0.5),
        rngs=rngs,
      )

    self.vision_projection = (
      projection(config.vision, use_bias=False)
      if config.vision_projection
      else None
    )
    self.text_projection = projection(
      config.text, use_bias=config.text.projection_bias
    )
    scalar = functools.partial(
      jnp.asarray, dtype=jnp.dtype(config.text.param_dtype)
    )
    self.logit_scale = nnx.Param(scalar(config.logit_scale_init))
    self.logit_bias = (
      None
      if config.logit_bias_init is None
      else nnx.Param(scalar(config.logit_bias_init))
    )

  def encode_image(
    self, pixels: Pixels
  ) -> Float[Array, "batch projection_dim"]:
    """Embeds images.

    Args:
      pixels: Normalised images (see `clip.preprocess`), channels last.

    Returns:
      Embeddings of unit length, in at least float32.

    Raises:
      ValueError: The pixels have another shape or an integer type.
    """
    return normalize(self.project_image(self.vision.features(pixels)))

  def project_image(
    self, features: Float[Array, "batch width"]
  ) -> Float[Array, "batch projection_dim"]:
    """The image tower's features in the space of the embeddings."""
    if self.vision_projection is None:
      return features
    return self.vision_projection(features)

  def encode_text(
    self, token_ids: Int[ArrayLike, "batch length"]
  ) -> Float[Array, "batch projection_dim"]:
    """Embeds texts.

    Args:
      token_ids: Tokens (see `clip.load_tokenizer`), at most `context_length`
        per text; what follows the end of a text does not matter.

    Returns:
      Embeddings of unit length, in at least float32.

    Raises:
      ValueError: The ids have another shape or type, or (NumPy arrays and
        lists) leave the vocabulary or lack the end of the text.
    """
    return normalize(self.text_projection(self.text.features(token_ids)))

  def __call__(
    self, pixels: Pixels, token_ids: Int[ArrayLike, "texts length"]
  ) -> Float[Array, "batch texts"]:
    """The logits per image: exp(logit_scale) times the cosines, plus a bias.

    Args:
      pixels: As for `encode_image`.
      token_ids: As for `encode_text`.

    Returns:
      One row per image, one column per text.

    Raises:
      ValueError: As for the two encoders.
    """
    image = self.encode_image(pixels)
    text = self.encode_text(token_ids)
    scale = jnp.exp(self.logit_scale[...].astype(image.dtype))
    logits = scale * (image @ text.T)
    if self.logit_bias is None:
      return logits
    return logits + self.logit_bias[...].astype(logits.dtype)
