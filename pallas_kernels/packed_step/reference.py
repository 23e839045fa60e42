"""The definition of packed_step, which XLA compiles too."""

import jax
import jax.numpy as jnp

from pallas_kernels import leaf as leaves
from pallas_kernels.packed_step.arithmetic import Memory, Scalars, step_entries


def packed_step(
  leaf: leaves.StratifiedLeaf,
  live: jax.Array,
  gradient: jax.Array,
  memory: Memory,
  scalars: Scalars,
  seed: jax.Array,
  *,
  scale: float,
) -> tuple[jax.Array, Memory]:
  """One step of a leaf's active entries.

  Args:
    leaf: Shape and strata.
    live: W, ``[..., cols]``.
    gradient: ∂L/∂W, ``[..., cols]``; or ∂L/∂Δ, float32 ``[..., k]``.
    memory: What the active entries carry.
    scalars: What they have in common.
    seed: See `leaf.seed`.
    scale: s.

  Returns:
    W and the memory after the step.
  """
  columns = leaf.columns(seed)
  if gradient.shape == live.shape:
    gradient = leaves.take(gradient, columns).astype(jnp.float32) / scale
  change, memory = step_entries(
    leaves.take(live, columns), gradient, memory, scalars, scale
  )
  change = leaves.put(change, columns, leaf.cols)
  return (live + change).astype(live.dtype), memory
