# pyright: reportAttributeAccessIssue=false
"""pack for NVIDIA Ampere and Ada, through jax-triton."""

import jax
import jax.numpy as jnp
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from pallas_kernels import leaf as leaves
from pallas_kernels.triton import block_numbers, call, positions, sequential

BLOCK = 512


@triton.jit
def pack_kernel(
  seed,
  dense,
  packed,
  cols: tl.constexpr,
  count: tl.constexpr,
  slots: tl.constexpr,
  divisor: tl.constexpr,
  block: tl.constexpr,
):
  """A program for a block of slots."""
  slot = block_numbers(block)
  here = slot < slots
  position = positions(seed, slot, cols, count).to(tl.int32)
  values = tl.load(dense + position, mask=here, other=0).to(tl.float32)
  tl.store(packed + slot.to(tl.int32), values / divisor, mask=here)


def pack(
  leaf: leaves.StratifiedLeaf,
  dense: jax.Array,
  seed: jax.Array,
  *,
  divisor: float,
) -> jax.Array:
  """`reference.pack`; the entries between the active ones are not read."""
  leaf.check_positions()

  @sequential
  def run(seed, dense):
    return call(
      pack_kernel,
      -(-leaf.packed_size // BLOCK),
      seed,
      dense.reshape(-1),
      out_type=jax.ShapeDtypeStruct((leaf.packed_size,), jnp.float32),
      cols=leaf.cols,
      count=leaf.count,
      slots=leaf.packed_size,
      divisor=divisor,
      block=BLOCK,
    )

  return run(seed, dense).reshape(leaf.packed_shape)
