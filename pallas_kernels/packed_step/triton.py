# pyright: reportAttributeAccessIssue=false
"""packed_step for NVIDIA Ampere and Ada, through jax-triton."""

import jax
import jax.numpy as jnp
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from pallas_kernels import leaf as leaves
from pallas_kernels.packed_step.arithmetic import PackedAdamState, Scalars
from pallas_kernels.triton import (
  block_numbers,
  call,
  difference,
  positions,
  sequential,
)

BLOCK = 512


@triton.jit
def packed_step_kernel(
  seed,
  scalars,
  gradient,
  weights,
  anchor,
  mu,
  nu,
  learned,
  cols: tl.constexpr,
  count: tl.constexpr,
  slots: tl.constexpr,
  divisor: tl.constexpr,
  dense_gradient: tl.constexpr,
  narrow: tl.constexpr,
  block: tl.constexpr,
):
  """`arithmetic.step_entries`, line by line; scalars as `Scalars` has them."""
  learning_rate = tl.load(scalars)
  b1, one_minus_b1 = tl.load(scalars + 1), tl.load(scalars + 2)
  correction1 = tl.load(scalars + 3)
  b2, one_minus_b2 = tl.load(scalars + 4), tl.load(scalars + 5)
  correction2 = tl.load(scalars + 6)
  eps, weight_decay = tl.load(scalars + 7), tl.load(scalars + 8)
  anchor_decay = tl.load(scalars + 9)
  starts, ends = tl.load(scalars + 10) > 0, tl.load(scalars + 11) > 0

  slot = block_numbers(block)
  here = slot < slots
  position = positions(seed, slot, cols, count).to(tl.int32)
  slot = slot.to(tl.int32)
  before = tl.load(weights + position, mask=here, other=0).to(tl.float32)
  if dense_gradient:
    slope = tl.load(gradient + position, mask=here, other=0).to(tl.float32)
    slope = slope / divisor
  else:
    slope = tl.load(gradient + slot, mask=here, other=0).to(tl.float32)
  centre = tl.load(anchor + slot, mask=here, other=0)
  centre = tl.where(starts, before, centre)
  now = before
  if narrow:
    now = tl.load(learned + slot, mask=here, other=0)
    now = tl.where(starts, before, now)
    residual = difference(now, centre)
  else:
    residual = divisor * difference(before, centre)

  first = tl.load(mu + slot, mask=here, other=0)
  first = one_minus_b1 * slope + b1 * first
  second = tl.load(nu + slot, mask=here, other=0)
  second = one_minus_b2 * (slope * slope) + b2 * second
  direction = (first / correction1) / (tl.sqrt(second / correction2) + eps)
  update = -learning_rate * (direction + weight_decay * residual)

  moved, kept = residual + update, 1 - anchor_decay
  if narrow:
    now = now + update
    change = tl.where(ends, kept * moved, moved * (1 / divisor))
    change = difference(centre + change, before)
    tl.store(learned + slot, now, mask=here)
  else:
    merge = moved * (kept - 1 / divisor)
    change = update / divisor + tl.where(ends, merge, 0.0)
  after = (before + change).to(weights.dtype.element_ty)
  tl.store(weights + position, after, mask=here)
  tl.store(anchor + slot, centre, mask=here)
  tl.store(mu + slot, first, mask=here)
  tl.store(nu + slot, second, mask=here)


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
  """`reference.packed_step`, in place."""
  leaf.check_positions()
  narrow = memory.learned is not None
  dense_gradient = gradient.shape == weights.shape

  @sequential
  def run(seed, scalars, gradient, weights, memory):
    weights = jax.new_ref(weights.reshape(-1))
    parts = [jax.new_ref(part.reshape(-1)) for part in jax.tree.leaves(memory)]
    # The kernel has a parameter for V even where W tells it.
    unused = [] if narrow else [jnp.zeros(1)]
    call(
      packed_step_kernel,
      -(-leaf.packed_size // BLOCK),
      seed,
      scalars,
      gradient.reshape(-1),
      weights,
      *parts,
      *unused,
      cols=leaf.cols,
      count=leaf.count,
      slots=leaf.packed_size,
      divisor=divisor,
      dense_gradient=dense_gradient,
      narrow=narrow,
      block=BLOCK,
    )
    stepped = (jax.freeze(part).reshape(leaf.packed_shape) for part in parts)
    return jax.freeze(weights).reshape(leaf.shape), PackedAdamState(*stepped)

  return run(seed, jnp.stack(scalars), gradient, weights, memory)
