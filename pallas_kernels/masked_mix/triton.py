# pyright: reportAttributeAccessIssue=false
"""masked_mix for NVIDIA Ampere and Ada, through jax-triton."""

from typing import Any

import jax
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from pallas_kernels import leaf as leaves
from pallas_kernels.triton import (
  block_numbers,
  call,
  positions,
  random_words,
  sequential,
)

TILE = 2048


@triton.jit
def stratified_kernel(
  seed,
  anchor,
  residual,
  weights,
  cols: tl.constexpr,
  count: tl.constexpr,
  size: tl.constexpr,
  slots: tl.constexpr,
  divisor: tl.constexpr,
  tile: tl.constexpr,
  reach: tl.constexpr,
):
  """Copies a tile, then overwrites the entries that its strata have drawn."""
  entry = block_numbers(tile)
  inside = entry < size
  entry = entry.to(tl.int32)
  copied = tl.load(anchor + entry, mask=inside).to(tl.float32)
  tl.store(weights + entry, copied.to(weights.dtype.element_ty), mask=inside)
  # What another thread of the program has copied is overwritten below.
  tl.debug_barrier()

  start = tl.program_id(0).to(tl.uint32) * tile
  row = start // cols
  above = (start - row * cols + 1) * count - 1
  slot = row * count + above // cols + tl.arange(0, reach).to(tl.uint32)
  position = positions(seed, slot, cols, count)
  mine = (position >= start) & (position < start + tile) & (slot < slots)
  position = position.to(tl.int32)
  change = tl.load(residual + slot.to(tl.int32), mask=mine, other=0)
  value = tl.load(anchor + position, mask=mine, other=0).to(tl.float32)
  value = value + change.to(tl.float32) / divisor
  tl.store(weights + position, value.to(weights.dtype.element_ty), mask=mine)


@triton.jit
def bernoulli_kernel(
  seed,
  anchor,
  residual,
  weights,
  cols: tl.constexpr,
  size: tl.constexpr,
  largest: tl.constexpr,
  divisor: tl.constexpr,
  tile: tl.constexpr,
):
  """One random word per entry."""
  entry = block_numbers(tile)
  inside = entry < size
  word = random_words(seed, entry + tl.load(seed + 2) * cols)
  active = word.to(tl.uint64) <= largest
  entry = entry.to(tl.int32)
  change = tl.load(residual + entry, mask=inside & active, other=0)
  value = tl.load(anchor + entry, mask=inside, other=0).to(tl.float32)
  value = value + change.to(tl.float32) / divisor
  tl.store(weights + entry, value.to(weights.dtype.element_ty), mask=inside)


def stratified(
  leaf: leaves.StratifiedLeaf,
  anchor: jax.Array,
  residual: jax.Array,
  seed: jax.Array,
  *,
  divisor: float,
  dtype: Any,
) -> jax.Array:
  """`reference.stratified`, in one pass over device memory."""
  leaf.check_positions()

  @sequential
  def run(seed, anchor, residual):
    return call(
      stratified_kernel,
      -(-leaf.size // TILE),
      seed,
      anchor.reshape(-1),
      residual.reshape(-1),
      out_type=jax.ShapeDtypeStruct((leaf.size,), dtype),
      cols=leaf.cols,
      count=leaf.count,
      size=leaf.size,
      slots=leaf.packed_size,
      divisor=divisor,
      tile=TILE,
      reach=triton.next_power_of_2(leaf.slots_within(TILE)),
    )

  return run(seed, anchor, residual).reshape(leaf.shape)


def bernoulli(
  anchor: jax.Array,
  residual: jax.Array,
  seed: jax.Array,
  *,
  kept: float,
  divisor: float,
  dtype: Any,
) -> jax.Array:
  """`reference.bernoulli`."""
  leaves.check_size(anchor.shape)

  @sequential
  def run(seed, anchor, residual):
    return call(
      bernoulli_kernel,
      -(-anchor.size // TILE),
      seed,
      anchor.reshape(-1),
      residual.reshape(-1),
      out_type=jax.ShapeDtypeStruct((anchor.size,), dtype),
      cols=anchor.shape[-1],
      size=anchor.size,
      largest=leaves.largest_active_word(kept),
      divisor=divisor,
      tile=TILE,
    )

  return run(seed, anchor, residual).reshape(anchor.shape)
