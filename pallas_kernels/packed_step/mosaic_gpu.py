"""packed_step for NVIDIA Hopper and newer."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import dispatch
from pallas_kernels import leaf as leaves
from pallas_kernels.lanes import NOWHERE, Lanes
from pallas_kernels.packed_step.arithmetic import (
  PackedAdamState,
  Scalars,
  step_entries,
)

# Slots per block: four of each array in flight for each thread.
BLOCK = 512


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
  """`reference.packed_step`, in place: a lane per slot.

  Training weights and memory are updated where they are if the caller donates
  them, and copied first if not. Entries between the active ones are neither
  read nor written.
  """
  leaf.check_positions()
  lanes = Lanes(BLOCK, dispatch.is_interpreted())
  dense_gradient = gradient.shape == weights.shape

  def packed_step(
    seed_ref, scalars_ref, gradient_ref, weights_ref, *memory_refs
  ):
    block = jax.lax.axis_index("block").astype(jnp.uint32)
    slot = lanes.iota() + block * np.uint32(BLOCK)
    position = leaf.positions(slot, seed_ref)
    position = jnp.where(slot < np.uint32(leaf.packed_size), position, NOWHERE)
    weights = lanes.load(weights_ref, position)
    if dense_gradient:
      gradient = (
        lanes.load(gradient_ref, position).astype(jnp.float32) / divisor
      )
    else:
      gradient = lanes.load(gradient_ref, slot)
    change, stepped = step_entries(
      weights,
      gradient,
      PackedAdamState(*(lanes.load(ref, slot) for ref in memory_refs)),
      Scalars(*(scalars_ref[i] for i in range(len(Scalars._fields)))),
      divisor,
    )
    # Rounded once, where weights are of low precision.
    moved = weights.astype(jnp.float32) + change
    lanes.store(weights_ref, position, moved.astype(weights.dtype))
    for ref, values in zip(memory_refs, jax.tree.leaves(stepped), strict=True):
      lanes.store(ref, slot, values)

  # Mutable references become operands that are aliased to results.
  weights_ref = jax.new_ref(weights.reshape(-1))
  memory_refs = [
    jax.new_ref(part.reshape(-1)) for part in jax.tree.leaves(memory)
  ]
  plgpu.kernel(
    packed_step,
    out_type=(),
    grid=(-(-leaf.packed_size // BLOCK),),
    grid_names=("block",),
    interpret=dispatch.interpreter(),
  )(seed, jnp.stack(scalars), gradient.reshape(-1), weights_ref, *memory_refs)
  stepped = PackedAdamState(
    *(jax.freeze(ref).reshape(leaf.packed_shape) for ref in memory_refs)
  )
  return jax.freeze(weights_ref).reshape(leaf.shape), stepped
