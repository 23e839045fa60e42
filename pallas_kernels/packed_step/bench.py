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

  # Traced and lowered once, and not for every copy.
  @jax.jit
  def one(weights, gradient, memory, turn, key):
    return packed_step(
      weights,
      gradient,
      memory,
      key,
      count=turn + 1,
      learning_rate=1e-4,
      kept=KEPT,
      starts=turn % EPISODE == 0,
      ends=turn % EPISODE == EPISODE - 1,
      implementation=implementation,
    )

  def step(carry, turn):
    gradient, held = carry
    key = lambda i: turn_key(turn // EPISODE * copies + i)
    return gradient, [
      one(weights, gradient, memory, turn, key(i))
      for i, (weights, memory) in enumerate(held)
    ]

  held = [
    (normal(0, shape, dtype), _fresh(shape, dtype)) for _ in range(copies)
  ]
  sectors = sector_bytes(leaf, dtype)
  parts = len(jax.tree.leaves(held[0][1]))
  return Workload(
    step,
    (normal(1, shape, dtype), held),
    copies * (3 * sectors + 2 * parts * 4 * leaf.packed_size),
  )


def _fresh(shape: tuple[int, ...], dtype: Any) -> Any:
  """PackedAdamState in buffers of its own, which can be donated."""
  memory = init(jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)), kept=KEPT)
  return jax.tree.map(lambda part: part + 0, memory)
