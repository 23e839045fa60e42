"""CLIP: an image tower and a text tower that meet in one unit sphere."""

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
  are the projected features of the towers, scaled to unit length.

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

    def projection(tower: TowerConfig) -> nnx.Linear:
      return nnx.Linear(
        tower.width,
        config.projection_dim,
        use_bias=False,
        dtype=tower.dtype,
        param_dtype=tower.param_dtype,
        kernel_init=jax.nn.initializers.truncated_normal(tower.width**-0.5),
        rngs=rngs,
      )

    self.vision_projection = projection(config.vision)
    self.text_projection = projection(config.text)
    self.logit_scale = nnx.Param(
      jnp.asarray(config.logit_scale_init, jnp.dtype(config.text.param_dtype))
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
    return normalize(self.vision_projection(self.vision.features(pixels)))

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
    """The logits per image: exp(logit_scale) times the cosines.

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
    return scale * (image @ text.T)
