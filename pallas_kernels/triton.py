# pyright: reportAttributeAccessIssue=false
"""What the Triton kernels share: random words, strata, and how to call them.

`threefry` and `leaf` in Triton's language, which cannot call theirs. Needs the
extra ``triton``; nothing else imports this file.
"""

from typing import Any

import jax
import jax_triton  # pyright: ignore[reportMissingImports]
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


def call(
  kernel: Any, grid: int, *operands: Any, out_type: Any = (), **constants: Any
) -> Any:
  """Runs a kernel on arrays and on references, which it may write to.

  Args:
    kernel: A function under ``triton.jit``.
    grid: Number of programs.
    *operands: Arrays and references, in the order of its parameters.
    out_type: Types of the results, which are its last parameters.
    **constants: Its ``tl.constexpr`` parameters.
  """
  return jax_triton.triton_call(
    *operands, kernel=kernel, grid=grid, out_type=out_type, **constants
  )


# triton_call has no batching rule.
sequential = jax.custom_batching.sequential_vmap


@triton.jit
def _four_rounds(
  first,
  second,
  rotation0: tl.constexpr,
  rotation1: tl.constexpr,
  rotation2: tl.constexpr,
  rotation3: tl.constexpr,
):
  first = first + second
  second = first ^ ((second << rotation0) | (second >> (32 - rotation0)))
  first = first + second
  second = first ^ ((second << rotation1) | (second >> (32 - rotation1)))
  first = first + second
  second = first ^ ((second << rotation2) | (second >> (32 - rotation2)))
  first = first + second
  second = first ^ ((second << rotation3) | (second >> (32 - rotation3)))
  return first, second


@triton.jit
def random_words(seed, position):
  """The word that `jax.random.bits` has at each flat position, uint32."""
  key0 = tl.load(seed)
  key1 = tl.load(seed + 1)
  key2 = key0 ^ key1 ^ 0x1BD11BDA
  first = tl.zeros_like(position) + key0
  second = position + key1
  first, second = _four_rounds(first, second, 13, 15, 26, 6)
  first, second = first + key1, second + key2 + 1
  first, second = _four_rounds(first, second, 17, 29, 16, 24)
  first, second = first + key2, second + key0 + 2
  first, second = _four_rounds(first, second, 13, 15, 26, 6)
  first, second = first + key0, second + key1 + 3
  first, second = _four_rounds(first, second, 17, 29, 16, 24)
  first, second = first + key1, second + key2 + 4
  first, second = _four_rounds(first, second, 13, 15, 26, 6)
  first, second = first + key2, second + key0 + 5
  return first ^ second


@triton.jit
def positions(seed, slot, cols: tl.constexpr, count: tl.constexpr):
  """Flat position of the entry behind each slot, uint32."""
  word = random_words(seed, slot + tl.load(seed + 2) * count)
  row = slot // count
  stratum = slot - row * count
  following = stratum + 1
  quotient: tl.constexpr = cols // count
  remainder: tl.constexpr = cols % count
  start = stratum * quotient + stratum * remainder // count
  end = following * quotient + following * remainder // count
  return row * cols + start + tl.umulhi(word, end - start)


@triton.jit
def block_numbers(block: tl.constexpr):
  """Numbers of the entries that this program has, uint32."""
  start = tl.program_id(0).to(tl.uint32) * block
  return start + tl.arange(0, block).to(tl.uint32)


@triton.jit
def difference(weights, others):
  """As `pallas_kernels.difference`: 0 where both are one infinity."""
  same = (weights == others) & (tl.abs(others) == float("inf"))
  return tl.where(same, 0.0, weights - others)
