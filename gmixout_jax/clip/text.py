"""The text tower: of CLIP, causal and pooled at the end; or of SigLIP."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from gmixout_jax.clip import layers
from gmixout_jax.clip.config import LEGACY_EOS, TextConfig

_normal = jax.nn.initializers.truncated_normal


def end_of_text(
  token_ids: Int[Array, "batch length"], eos_token_id: int
) -> Int[Array, " batch"]:
  """Where each text ends.

  Args:
    token_ids: The tokens.
    eos_token_id: The id of the end token; 2 stands for the largest id of the
      text, as in legacy configs.

  Returns:
    The first position that holds the id; 0 where none does.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax.clip import text
    >>> ids = jnp.array([[7, 5, 8, 8], [7, 9, 8, 8]])
    >>> text.end_of_text(ids, 8).tolist(), text.end_of_text(ids, 2).tolist()
    ([2, 2], [2, 1])
  """
  if eos_token_id == LEGACY_EOS:
    return jnp.argmax(token_ids, axis=1)
  return jnp.argmax(token_ids == eos_token_id, axis=1)


class TextTransformer(nnx.Module):
  """The text transformer of CLIP (Radford et al., 2021), or of SigLIP.

  CLIP's needs no padding mask: a token sees only earlier ones, and the text is
  pooled at its end, so what follows the end changes nothing. SigLIP's has none
  either: it reads padding as it does words, and pools at the last token, so its
  texts must be filled up to the length that it was trained with.

  Example:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from gmixout_jax import clip
    >>> config = clip.TextConfig(
    ...   vocab_size=10, context_length=6, eos_token_id=9, width=8, depth=1,
    ...   heads=2, mlp_width=16,
    ... )
    >>> make = lambda: clip.TextTransformer(config, rngs=nnx.Rngs(0))
    >>> model = nnx.jit(make)()
    >>> features = nnx.jit(lambda model, ids: model.features(ids))
    >>> features(model, jnp.array([[8, 3, 4, 9, 9, 9]])).shape
    (1, 8)
  """

  def __init__(self, config: TextConfig, *, rngs: nnx.Rngs):
    self.config = config
    self.token_embedding = nnx.Embed(
      config.vocab_size,
      config.width,
      dtype=config.dtype,
      param_dtype=config.param_dtype,
      embedding_init=_normal(0.02),
      rngs=rngs,
    )
    self.position_embedding = nnx.Param(
      _normal(0.01)(
        rngs.params(),
        (config.context_length, config.width),
        jnp.dtype(config.param_dtype),
      )
    )
    self.blocks = layers.make_blocks(config, causal=config.causal, rngs=rngs)
    self.norm = layers.layer_norm(config, rngs=rngs)

  def tokens(
    self, token_ids: Int[ArrayLike, "batch length"]
  ) -> Float[Array, "batch length width"]:
    """The output of the last block, before the final norm.

    Args:
      token_ids: At most `context_length` tokens per text.

    Returns:
      The features of every token, of CLIP each made of the tokens up to it.

    Raises:
      ValueError: The ids have another shape or type, or lie outside of the
        vocabulary (checked for NumPy arrays and lists: looking into a device
        array would wait for it).
    """
    token_ids = self._ids(token_ids)
    x = self.token_embedding(token_ids)
    positions = self.position_embedding[: token_ids.shape[1]]
    x = x + positions.astype(x.dtype)[None]
    return layers.run_blocks(self.blocks, x, remat=self.config.remat)

  def features(
    self, token_ids: Int[ArrayLike, "batch length"]
  ) -> Float[Array, "batch width"]:
    """The token at the end of the text, or the last, after the final norm.

    Raises:
      ValueError: As for `check`.
    """
    ids = self.check(token_ids)
    x = self.tokens(ids)
    if self.config.pool == "last":
      return self.norm(x[:, -1])
    end = end_of_text(ids, self.config.eos_token_id)
    return self.norm(jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0])

  def check(
    self, token_ids: Int[ArrayLike, "batch length"]
  ) -> Int[Array, "batch length"]:
    """The tokens of whole texts, checked.

    A jitted function sees no numbers: what goes into one is checked before.

    Args:
      token_ids: As for `tokens`.

    Returns:
      The same as int32.

    Raises:
      ValueError: As for `tokens`, or a text has no end (same condition), or is
        shorter than the model was trained with, where that matters.
    """
    ids, config = self._ids(token_ids), self.config
    if config.pool == "last":
      length = config.context_length
      if ids.shape[1] != length:
        raise ValueError(
          f"token_ids must be filled up to {length} tokens, the last of which"
          f" this model reads, got {ids.shape[1]}."
        )
    elif not isinstance(token_ids, jax.Array):
      eos = config.eos_token_id
      ended = (np.asarray(token_ids) == eos).any(axis=-1)
      if eos != LEGACY_EOS and not ended.all():
        raise ValueError(
          f"every text must hold eos_token_id = {eos}; text "
          f"{int(np.argmin(ended))} does not."
        )
    return ids

  def _ids(self, token_ids: ArrayLike) -> Int[Array, "batch length"]:
    config = self.config
    ids = token_ids
    if not isinstance(ids, jax.Array):
      ids = np.asarray(ids)
    longest = config.context_length
    if ids.ndim != 2 or not 1 <= ids.shape[1] <= longest:
      raise ValueError(
        f"token_ids must have shape [batch, at most {longest}], got "
        f"{list(ids.shape)}."
      )
    if not jnp.issubdtype(ids.dtype, jnp.integer):
      raise ValueError(f"token_ids must be integers, got {ids.dtype}.")
    if isinstance(ids, np.ndarray):
      outside = ids[(ids < 0) | (ids >= config.vocab_size)]
      if outside.size:
        raise ValueError(
          f"token_ids must lie in [0, {config.vocab_size}), got "
          f"{int(outside[0])}."
        )
    # int64 ids (NumPy's default) would only warn about the missing x64 mode.
    return jnp.asarray(ids, jnp.int32)
