"""The work by which masked_mix is timed."""

import math
from typing import Any

import jax.numpy as jnp

from pallas_kernels import leaf as leaves
from pallas_kernels.dispatch import Implementation
from pallas_kernels.masked_mix.api import Sampler, masked_mix
from pallas_kernels.workload import KEPT, Workload, normal, turn_key


def workload(
  shape: tuple[int, ...],
  dtype: Any,
  implementation: Implementation | None,
  sampler: Sampler = "stratified",
) -> Workload:
  """Mixes a residual into what the turn before has left."""
  leaf = leaves.StratifiedLeaf(shape, KEPT)
  packed = sampler == "stratified"
  residual_shape = leaf.packed_shape if packed else shape

  def step(carry, turn):
    anchor, residual = carry
    mixed = masked_mix(
      anchor,
      residual,
      turn_key(turn),
      kept=KEPT,
      sampler=sampler,
      implementation=implementation,
    )
    return mixed, residual

  return Workload(
    step,
    (normal(0, shape, dtype), normal(1, residual_shape, jnp.float32)),
    2 * leaf.size * jnp.dtype(dtype).itemsize + 4 * math.prod(residual_shape),
  )
