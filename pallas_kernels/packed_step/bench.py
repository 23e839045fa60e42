"""The work by which packed_step is timed."""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels import leaf as leaves
from pallas_kernels.dispatch import Implementation
from pallas_kernels.packed_step.api import init, packed_step
from pallas_kernels.workload import (
  KEPT,
  Workload,
  normal,
  sector_bytes,
  turn_key,
)

EPISODE = 50


def workload(
  shape: tuple[int, ...],
  dtype: Any,
  implementation: Implementation | None,
  copies: int = 1,
) -> Workload:
  """Steps of `copies` leaves of one shape, in episodes of fifty."""
  leaf = leaves.StratifiedLeaf(shape, KEPT)
  gradient = normal(1, shape, dtype)

  def step(carry, turn):
    return [
      packed_step(
        weights,
        gradient,
        memory,
        turn_key(turn // EPISODE * copies + i),
        count=turn + 1,
        learning_rate=1e-4,
        kept=KEPT,
        starts=turn % EPISODE == 0,
        ends=turn % EPISODE == EPISODE - 1,
        implementation=implementation,
      )
      for i, (weights, memory) in enumerate(carry)
    ]

  carry = [
    (normal(0, shape, dtype), _fresh(shape, dtype)) for _ in range(copies)
  ]
  sectors = sector_bytes(leaf, dtype)
  parts = len(jax.tree.leaves(carry[0][1]))
  return Workload(
    step,
    carry,
    copies * (3 * sectors + 2 * parts * 4 * leaf.packed_size),
  )


def _fresh(shape: tuple[int, ...], dtype: Any) -> Any:
  """PackedAdamState in buffers of its own, which can be donated."""
  memory = init(jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)), kept=KEPT)
  return jax.tree.map(lambda part: part + 0, memory)
