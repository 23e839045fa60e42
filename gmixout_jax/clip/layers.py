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


def layer_norm(config: config_lib.TowerConfig, *, rngs: nnx.Rngs) -> LayerNorm:
  """A LayerNorm over the width, in the config's types."""
  return LayerNorm(
    config.width,
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

  def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
    """Maps the last axis."""
    return _settled(super().__call__(inputs, out_sharding=out_sharding))


def _linear(
  config: config_lib.TowerConfig,
  inputs: int,
  outputs: int,
  *,
  std: float,
  rngs: nnx.Rngs,
) -> Linear:
  return Linear(
    inputs,
    outputs,
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
    self.query = make(std=width**-0.5)
    self.key = make(std=width**-0.5)
    self.value = make(std=width**-0.5)
    self.out = make(std=_residual_std(config))
    self.heads = config.heads
    self.causal = causal
    self.implementation: attention_lib.Implementation = config.attention

  def __call__(self, x: Tokens) -> Tokens:
    """Attends from every token to all, or, if causal, to no later one."""
    batch, length, width = x.shape

    def heads(y):
      return y.reshape(batch, length, self.heads, width // self.heads)

    y = attention_lib.attend(
      heads(self.query(x)),
      heads(self.key(x)),
      heads(self.value(x)),
      causal=self.causal,
      implementation=self.implementation,
    )
    return self.out(y.reshape(batch, length, width))


class MLP(nnx.Module):
  """Two linear layers with the config's activation between them."""

  def __init__(self, config: config_lib.TowerConfig, *, rngs: nnx.Rngs):
    width, hidden = config.width, config.mlp_width
    self.fc1 = _linear(
      config, width, hidden, std=(2 * width) ** -0.5, rngs=rngs
    )
    self.fc2 = _linear(
      config, hidden, width, std=_residual_std(config), rngs=rngs
    )
    self.activation: config_lib.Activation = config.activation

  def __call__(self, x: Tokens) -> Tokens:
    """Maps each token on its own."""
    return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


class Block(nnx.Module):
  """x + attention(norm1(x)), then x + mlp(norm2(x))."""

  def __init__(
    self, config: config_lib.TowerConfig, *, causal: bool, rngs: nnx.Rngs
  ):
    self.norm1 = layer_norm(config, rngs=rngs)
    self.attention = Attention(config, causal=causal, rngs=rngs)
    self.norm2 = layer_norm(config, rngs=rngs)
    self.mlp = MLP(config, rngs=rngs)

  def __call__(self, x: Tokens) -> Tokens:
    """Adds the two residual branches."""
    x = x + self.attention(self.norm1(x))
    return x + self.mlp(self.norm2(x))


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
