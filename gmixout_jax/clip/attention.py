"""Attention by one of JAX's implementations, and where each can run."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pallas_kernels import dispatch

Implementation = Literal["xla", "cudnn"]
Heads = Float[Array, "batch length heads size"]


def attend(
  query: Heads,
  key: Heads,
  value: Heads,
  *,
  causal: bool,
  implementation: Implementation,
) -> Heads:
  """softmax(q kᵀ / √d) v per head, its softmax in float32.

  Args:
    query: q.
    key: k.
    value: v.
    causal: Whether a token sees none that follow it.
    implementation: Of `jax.nn.dot_product_attention`.

  Returns:
    In the type of the arguments.
  """
  if implementation == "cudnn" and query.shape[1] % 2:
    return padded(
      query, key, value, causal=causal, implementation=implementation
    )
  return jax.nn.dot_product_attention(
    query, key, value, is_causal=causal, implementation=implementation
  )


def padded(
  query: Heads,
  key: Heads,
  value: Heads,
  *,
  causal: bool,
  implementation: Implementation,
) -> Heads:
  """The same, computed with one more token that no other sees.

  JAX differentiates cuDNN's attention over an even number of tokens only: its
  check of biases takes the stand-in for an absent one (jax 0.12.0). Patches
  and a class token are 197.
  """
  batch, length = query.shape[:2]
  wide = [(0, 0), (0, 1), (0, 0), (0, 0)]
  found = jax.nn.dot_product_attention(
    *(jnp.pad(x, wide) for x in (query, key, value)),
    is_causal=causal,
    # Causal attention hides what comes last by itself.
    key_value_seq_lengths=None if causal else jnp.full(batch, length, "int32"),
    implementation=implementation,
  )
  return found[:, :length]


def check(
  implementation: str, dtype: DTypeLike, head_width: int | None = None
) -> None:
  """Refuses what no device could compute.

  Args:
    implementation: The value of a config's `attention`.
    dtype: The type of the computation.
    head_width: Features per head, if they are known.

  Raises:
    ValueError: There is no such implementation, or cuDNN has none for this
      type or width.

  Example:
    >>> from gmixout_jax.clip import attention
    >>> attention.check("cudnn", "bfloat16", head_width=64)
  """
  if implementation not in get_args(Implementation):
    raise ValueError(
      f"attention must be one of {get_args(Implementation)}, got"
      f" {implementation!r}."
    )
  if implementation == "xla":
    return
  if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
    raise ValueError(
      "attention='cudnn' computes in bfloat16 or float16 alone, got dtype ="
      f" {jnp.dtype(dtype).name!r}."
    )
  if head_width is not None and head_width % 8:
    raise ValueError(
      "attention='cudnn' needs a multiple of 8 features per head, got"
      f" {head_width}."
    )


def check_device(implementation: Implementation) -> None:
  """Refuses what this process' first device cannot compute.

  JAX itself would complain in the middle of tracing, and on a CPU without
  naming what was asked for.

  Args:
    implementation: The value of a config's `attention`.

  Raises:
    ValueError: It is "cudnn", and the device is no NVIDIA GPU that has it.

  Example:
    >>> from gmixout_jax.clip import attention
    >>> attention.check_device("xla")
  """
  if implementation == "xla":
    return
  obstacle = dispatch.too_old((8, 0), "Ampere")
  if obstacle is not None:
    raise ValueError(
      f"attention={implementation!r} cannot run here: {obstacle}."
    )
