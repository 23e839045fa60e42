"""Pooling of tokens by the attention of a learned query."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gmixout_jax.clip import layers
from gmixout_jax.clip.config import VisionConfig


class AttentionPool(nnx.Module):
  """y = attention(probe, tokens), then y + mlp(norm(y)): SigLIP's head.

  References:
    Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023,
    https://arxiv.org/abs/2303.15343
  """

  def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
    width, dtype = config.width, jnp.dtype(config.param_dtype)
    draw = jax.nn.initializers.truncated_normal(width**-0.5)
    self.probe = nnx.Param(draw(rngs.params(), (width,), dtype))
    self.query, self.key, self.value, self.out = (
      layers.Linear(
        width,
        width,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        kernel_init=draw,
        rngs=rngs,
      )
      for _ in range(4)
    )
    self.norm = layers.layer_norm(config, rngs=rngs)
    self.mlp = layers.MLP(config, rngs=rngs)
    self.heads = config.heads

  def __call__(
    self, x: Float[Array, "batch tokens width"]
  ) -> Float[Array, "batch width"]:
    """Pools the tokens of each image."""
    width = x.shape[-1]

    def heads(y: Array) -> Array:
      return y.reshape(*y.shape[:-1], self.heads, width // self.heads)

    probe = self.probe[...].astype(x.dtype)
    probe = jnp.broadcast_to(probe, (len(x), 1, width))
    # One query: there is no matrix of scores for cuDNN to save.
    y = jax.nn.dot_product_attention(
      heads(self.query(probe)), heads(self.key(x)), heads(self.value(x))
    )
    y = self.out(y.reshape(len(x), width))
    return y + self.mlp(self.norm(y))
