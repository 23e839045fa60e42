"""masked_mix for NVIDIA Hopper and newer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import dispatch
from pallas_kernels import leaf as leaves
from pallas_kernels.lanes import NOWHERE, WARPGROUP, Lanes

# Entries per block: 16 for each thread.
TILE = 2048


def stratified(
  leaf: leaves.StratifiedLeaf,
  anchor: jax.Array,
  residual: jax.Array,
  seed: jax.Array,
  *,
  divisor: float,
  dtype: Any,
) -> jax.Array:
  """`reference.stratified`, in one pass over device memory.

  A block copies a tile of the anchor, then goes over the slots whose strata
  reach into the tile and overwrites the entries they have drawn. The tile is
  in the cache by then. So there is one threefry per active entry, where
  asking every entry whether it is active would need one for each.
  """
  leaf.check_positions()
  slots = -(-leaf.slots_within(TILE) // WARPGROUP) * WARPGROUP
  interpret = dispatch.is_interpreted()
  lanes = Lanes(slots, interpret)

  def masked_mix(seed_ref, anchor_ref, residual_ref, weights_ref):
    start = jax.lax.axis_index("tile").astype(jnp.uint32) * np.uint32(TILE)
    _copy(anchor_ref, weights_ref, start, interpret)
    slot = lanes.iota() + leaf.slot_at(start)
    position = leaf.positions(slot, seed_ref)
    mine = (position >= start) & (position < start + np.uint32(TILE))
    mine = mine & (slot < np.uint32(leaf.packed_size))
    position = jnp.where(mine, position, NOWHERE)
    slot = jnp.where(mine, slot, NOWHERE)
    change = lanes.load(residual_ref, slot).astype(jnp.float32) / divisor
    value = lanes.load(anchor_ref, position).astype(jnp.float32) + change
    lanes.store(weights_ref, position, value.astype(dtype))

  return _over_tiles(masked_mix, anchor, dtype)(
    seed, anchor.reshape(-1), residual.reshape(-1)
  ).reshape(anchor.shape)


def bernoulli(
  anchor: jax.Array,
  residual: jax.Array,
  seed: jax.Array,
  *,
  kept: float,
  divisor: float,
  dtype: Any,
) -> jax.Array:
  """`reference.bernoulli`: one threefry per entry."""
  leaves.check_size(anchor.shape)
  lanes = Lanes(TILE, dispatch.is_interpreted())
  cols = np.uint32(anchor.shape[-1])

  def masked_mix(seed_ref, anchor_ref, residual_ref, weights_ref):
    start = jax.lax.axis_index("tile").astype(jnp.uint32) * np.uint32(TILE)
    position = lanes.iota() + start
    active = leaves.bernoulli_active(
      seed_ref, position + seed_ref[2] * cols, kept
    )
    change = lanes.load(residual_ref, position).astype(jnp.float32) / divisor
    value = lanes.load(anchor_ref, position).astype(jnp.float32)
    value = value + jnp.where(active, change, jnp.zeros_like(change))
    lanes.store(weights_ref, position, value.astype(dtype))

  return _over_tiles(masked_mix, anchor, dtype)(
    seed, anchor.reshape(-1), residual.reshape(-1)
  ).reshape(anchor.shape)


def _over_tiles(body: Any, anchor: jax.Array, dtype: Any) -> Any:
  """A kernel with one block per tile, which returns a flat leaf."""
  return plgpu.kernel(
    body,
    out_type=jax.ShapeDtypeStruct((anchor.size,), dtype),
    grid=(-(-anchor.size // TILE),),
    grid_names=("tile",),
    interpret=dispatch.interpreter(),
  )


def _copy(source, target, start: jax.Array, interpret: bool) -> None:
  """Copies a tile from one flat reference to another."""
  (size,) = source.shape
  if size % TILE == 0:
    # Whole tiles are aligned, also under vmap, and copy 16 bytes a time.
    tile = pl.ds(start.astype(jnp.int32), TILE)
    target[tile] = source[tile].astype(target.dtype)
    return
  lanes = Lanes(TILE, interpret)
  position = lanes.iota() + start
  values = lanes.load(source, position).astype(target.dtype)
  lanes.store(target, position, values)
