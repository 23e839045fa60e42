"""The work by which pack is timed."""

from typing import Any

import jax.numpy as jnp

from pallas_kernels import leaf as leaves
from pallas_kernels.dispatch import Implementation
from pallas_kernels.pack.api import pack
from pallas_kernels.workload import (
  KEPT,
  Workload,
  normal,
  sector_bytes,
  turn_key,
)


def workload(
  shape: tuple[int, ...], dtype: Any, implementation: Implementation | None
) -> Workload:
  """Packs one array with another mask each turn."""
  leaf = leaves.StratifiedLeaf(shape, KEPT)

  def step(carry, turn):
    dense, _ = carry
    packed = pack(
      dense, turn_key(turn), kept=KEPT, implementation=implementation
    )
    return dense, packed

  return Workload(
    step,
    (normal(0, shape, dtype), jnp.zeros(leaf.packed_shape)),
    sector_bytes(leaf, dtype) + 4 * leaf.packed_size,
  )
