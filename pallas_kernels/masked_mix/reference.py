"""The definition of masked_mix, which XLA compiles too."""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels import leaf as leaves
from pallas_kernels import threefry


def stratified(
  leaf: leaves.StratifiedLeaf,
  anchor: jax.Array,
  residual: jax.Array,
  seed: jax.Array,
  *,
  divisor: float,
  dtype: Any,
) -> jax.Array:
  """``A + M⊙Δ/s`` with Δ packed at the active entries.

  Args:
    leaf: Shape and strata.
    anchor: A, ``[..., cols]``.
    residual: Δ, ``[..., k]``.
    seed: See `leaf.seed`.
    divisor: s.
    dtype: Type of the result. The sum is formed in float32.
  """
  change = residual.astype(jnp.float32) / divisor
  change = leaves.put(change, leaf.columns(seed), leaf.cols)
  change = change.reshape(leaf.shape)
  return (anchor.astype(jnp.float32) + change).astype(dtype)


def bernoulli(
  anchor: jax.Array,
  residual: jax.Array,
  seed: jax.Array,
  *,
  kept: float,
  divisor: float,
  dtype: Any,
) -> jax.Array:
  """``A + M⊙Δ/s`` with each entry of a dense Δ active on its own.

  Args:
    anchor: A, ``[..., cols]``.
    residual: Δ, ``[..., cols]``.
    seed: See `leaf.seed`.
    kept: Probability that an entry is active.
    divisor: s.
    dtype: Type of the result. The sum is formed in float32.
  """
  position = threefry.flat_position(anchor.shape)
  position = position + seed[2] * jnp.uint32(anchor.shape[-1])
  active = leaves.bernoulli_active(seed, position, kept)
  change = jnp.where(active, residual.astype(jnp.float32) / divisor, 0)
  return (anchor.astype(jnp.float32) + change).astype(dtype)
