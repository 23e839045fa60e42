"""The definition of packed_step, which XLA compiles too."""

import jax
import jax.numpy as jnp

from pallas_kernels import leaf as leaves
from pallas_kernels.packed_step.arithmetic import (
  PackedAdamState,
  Scalars,
  step_entries,
)


def packed_step(
  leaf: leaves.StratifiedLeaf,
  weights: jax.Array,
  gradient: jax.Array,
  memory: PackedAdamState,
  scalars: Scalars,
  seed: jax.Array,
  *,
  divisor: float,
) -> tuple[jax.Array, PackedAdamState]:
  """One step of a leaf's active entries.

  Args:
    leaf: Shape and strata.
    weights: The training weights W, ``[..., cols]``.
    gradient: ∂L/∂W, ``[..., cols]``; or ∂L/∂Δ, float32 ``[..., k]``.
    memory: What the active entries carry.
    scalars: What they have in common.
    seed: See `leaf.seed`.
    divisor: s.

  Returns:
    W and the memory after the step.
  """
  columns = leaf.columns(seed)
  if gradient.shape == weights.shape:
    gradient = leaves.take(gradient.reshape(leaf.view), columns)
    gradient = gradient.astype(jnp.float32) / divisor
  change, memory = step_entries(
    leaves.take(weights.reshape(leaf.view), columns),
    gradient,
    memory,
    scalars,
    divisor,
  )
  change = leaves.put(change, columns, leaf.cols).reshape(leaf.shape)
  stepped = weights.astype(jnp.float32) + change
  return stepped.astype(weights.dtype), memory
