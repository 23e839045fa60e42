"""pack for NVIDIA Hopper and newer."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import dispatch
from pallas_kernels import leaf as leaves
from pallas_kernels.lanes import NOWHERE, Lanes

# Slots per block: four loads in flight for each thread.
BLOCK = 512


def pack(
  leaf: leaves.StratifiedLeaf,
  dense: jax.Array,
  seed: jax.Array,
  *,
  divisor: float,
) -> jax.Array:
  """`reference.pack`: a lane per slot; the entries between are not read."""
  leaf.check_positions()
  lanes = Lanes(BLOCK, dispatch.is_interpreted())

  def pack(seed_ref, dense_ref, packed_ref):
    block = jax.lax.axis_index("block").astype(jnp.uint32)
    slot = lanes.iota() + block * np.uint32(BLOCK)
    position = leaf.positions(slot, seed_ref)
    position = jnp.where(slot < np.uint32(leaf.packed_size), position, NOWHERE)
    values = lanes.load(dense_ref, position).astype(jnp.float32)
    lanes.store(packed_ref, slot, values / divisor)

  return plgpu.kernel(
    pack,
    out_type=jax.ShapeDtypeStruct((leaf.packed_size,), jnp.float32),
    grid=(-(-leaf.packed_size // BLOCK),),
    grid_names=("block",),
    interpret=dispatch.interpreter(),
  )(seed, dense.reshape(-1)).reshape(leaf.packed_shape)
