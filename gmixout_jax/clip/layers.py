"""The pre-LN transformer block that every tower is made of."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gmixout_jax.clip import attention as attention_lib
from gmixout_jax.clip import config as config_lib

Tokens = Float[Array, "batch length width"]

_normal = jax.nn.initializers.truncated_normal


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """OpenAI's approximation of GELU, x σ(1.702 x).

  It differs from the exact GELU by up to 0.02, so weights trained with one
  must not be run with the other.

  Example:
    >>> from gmixout_jax.clip import layers
    >>> float(layers.quick_gelu(0.0))
    0.0
  """
  return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[config_lib.Activation, Callable[[Array], Array]] = {
  "quick_gelu": quick_gelu,
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


class LayerNorm(nnx.LayerNorm):
  """`nnx.LayerNorm` that keeps no more than its input, if that is narrow.

  The statistics of a narrow input are in float32, and so are three arrays of
  its shape that a backward pass would keep of them: six times the input. They
  are computed again instead, which on accelerators takes less than to write
  and read them. In float32 all is Flax's, to the bit.
  """

  def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
    """Normalises the last axis."""
    apply = functools.partial(super().__call__, mask=mask)
    if self.dtype is None or jnp.finfo(self.dtype).bits >= 32:
      return apply(x)
    return jax.checkpoint(apply)(x)


def layer_norm(
  config: config_lib.TowerConfig,
  *,
  width: int | None = None,
  rngs: nnx.Rngs,
) -> LayerNorm:
  """A LayerNorm over the config's width or another, in the config's types."""
  return LayerNorm(
    width or config.width,
    epsilon=config.eps,
    dtype=config.dtype,
    param_dtype=config.param_dtype,
    # E[x²] − E[x]² cancels badly: trained CLIPs hold features of ~100 std.
    use_fast_variance=False,
    rngs=rngs,
  )


@jax.custom_jvp
def _settled(x: Array) -> Array:
  return x


@_settled.defjvp
def _settled_jvp(
  primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
  tangent = jax.lax.platform_dependent(
    tangents[0], cpu=jax.lax.optimization_barrier, default=lambda x: x
  )
  return primals[0], tangent


class Linear(nnx.Linear):
  """`nnx.Linear` with the same numbers and a faster backward pass on CPUs.

  There XLA fuses what makes the output's gradient, such as the derivative of
  GELU, into the transposed copies that both products of the backward pass read,
  and so computes it once per copy, element by element. A barrier ends that: of
  a step of ViT-Ti/16 at 64 pixels it saves 37 % of the CPU time, and half of
  the time to compile.
  """

  multiplies_by_kernel = True  # so `gmixout_jax.nnx` may tap its product

  def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
    """Maps the last axis."""
    return _settled(super().__call__(inputs, out_sharding=out_sharding))


def _linear(
  config: config_lib.TowerConfig,
  inputs: int,
  outputs: int,
  *,
  std: float,
  use_bias: bool = True,
  rngs: nnx.Rngs,
) -> Linear:
  return Linear(
    inputs,
    outputs,
    use_bias=use_bias,
    dtype=config.dtype,
    param_dtype=config.param_dtype,
    kernel_init=_normal(std),
    rngs=rngs,
  )


def _residual_std(config: config_lib.TowerConfig) -> float:
  # A block adds two terms to the residual stream; this keeps their sum over
  # the depth at unit scale, as in OpenAI's CLIP.
  return (2 * config.depth * config.width) ** -0.5


class Attention(nnx.Module):
  """Multi-head self-attention: softmax(q kᵀ / √d) v, then a linear map.

  Four plain linear layers, not a fused qkv, so that each [in, out] kernel is
  one matrix to whatever walks the parameters.

  Raises:
    ValueError: This process' device has not the config's implementation.
  """

  def __init__(
    self, config: config_lib.TowerConfig, *, causal: bool, rngs: nnx.Rngs
  ):
    attention_lib.check_device(config.attention)
    width = config.width
    make = functools.partial(_linear, config, width, width, rngs=rngs)
    self.query, self.key, self.value = (
      make(std=width**-0.5, use_bias=config.qkv_bias) for _ in range(3)
    )
    self.out = make(std=_residual_std(config))
    self.query_norm, self.key_norm = (
      layer_norm(config, width=width // config.heads, rngs=rngs)
      if config.qk_norm
      else None
      for _ in range(2)
    )
    self.heads = config.heads
    self.causal = causal
    self.implementation: attention_lib.Implementation = config.attention

  def __call__(self, x: Tokens) -> Tokens:
    """Attends from every token to all, or, if causal, to no later one."""
    batch, length, width = x.shape

    def heads(y, norm=None):
      y = y.reshape(batch, length, self.heads, width // self.heads)
      return y if norm is None else norm(y)

    y = attention_lib.attend(
      heads(self.query(x), self.query_norm),
      heads(self.key(x), self.key_norm),
      heads(self.value(x)),
      causal=self.causal,
      implementation=self.implementation,
    )
    return self.out(y.reshape(batch, length, width))


class MLP(nnx.Module):
  """Two linear layers with the config's activation between them, or SwiGLU."""

  def __init__(self, config: config_lib.TowerConfig, *, rngs: nnx.Rngs):
    width, hidden = config.width, config.mlp_width
    self.gated = config.mlp == "swiglu"
    self.fc1 = _linear(
      config,
      width,
      hidden * (2 if self.gated else 1),
      std=(2 * width) ** -0.5,
      rngs=rngs,
    )
    self.fc2 = _linear(
      config, hidden, width, std=_residual_std(config), rngs=rngs
    )
    self.activation: config_lib.Activation = config.activation

  def __call__(self, x: Tokens) -> Tokens:
    """Maps each token on its own."""
    x = self.fc1(x)
    if self.gated:
      gate, value = jnp.split(x, 2, axis=-1)
      return self.fc2(jax.nn.silu(gate) * value)
    return self.fc2(ACTIVATIONS[self.activation](x))


class LayerScale(nnx.Module):
  """A learned factor on each feature."""

  def __init__(self, initial: float, config: config_lib.TowerConfig):
    dtype = jnp.dtype(config.param_dtype)
    self.scale = nnx.Param(jnp.full(config.width, initial, dtype))

  def __call__(self, x: Tokens) -> Tokens:
    """Scales the last axis."""
    return x * self.scale[...].astype(x.dtype)[None, None]


class Block(nnx.Module):
  """x + attention(norm1(x)), then x + mlp(norm2(x)).

  With LayerScale both terms have learned factors.
  """

  def __init__(
    self, config: config_lib.TowerConfig, *, causal: bool, rngs: nnx.Rngs
  ):
    self.norm1 = layer_norm(config, rngs=rngs)
    self.attention = Attention(config, causal=causal, rngs=rngs)
    self.norm2 = layer_norm(config, rngs=rngs)
    self.mlp = MLP(config, rngs=rngs)
    self.scale1, self.scale2 = (
      None
      if (initial := config.layer_scale) is None
      else LayerScale(initial, config)
      for _ in range(2)
    )

  def __call__(self, x: Tokens) -> Tokens:
    """Adds the two residual branches."""
    y = self.attention(self.norm1(x))
    x = x + (y if self.scale1 is None else self.scale1(y))
    y = self.mlp(self.norm2(x))
    return x + (y if self.scale2 is None else self.scale2(y))


def make_blocks(
  config: config_lib.TowerConfig, *, causal: bool, rngs: nnx.Rngs
) -> nnx.List[Block]:
  """The config's `depth` blocks, to be run by `run_blocks`."""
  return nnx.List(
    [Block(config, causal=causal, rngs=rngs) for _ in range(config.depth)]
  )


def run_blocks(blocks: nnx.List[Block], x: Tokens, *, remat: bool) -> Tokens:
  """Runs the blocks in turn; `remat` keeps only their inputs for backward."""
  apply = nnx.remat(Block.__call__) if remat else Block.__call__
  for block in blocks:
    x = apply(block, x)
  return x
