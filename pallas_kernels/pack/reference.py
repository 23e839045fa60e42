"""The definition of pack, which XLA compiles too."""

import jax
import jax.numpy as jnp

from pallas_kernels import leaf as leaves


def pack(
  leaf: leaves.StratifiedLeaf,
  dense: jax.Array,
  seed: jax.Array,
  *,
  divisor: float,
) -> jax.Array:
  """Active entries of `dense` divided by s, float32 ``[..., k]``.

  Args:
    leaf: Shape and strata.
    dense: ``[..., cols]``.
    seed: See `leaf.seed`.
    divisor: s.
  """
  rows = dense.reshape(leaf.view)
  return leaves.take(rows, leaf.columns(seed)).astype(jnp.float32) / divisor
