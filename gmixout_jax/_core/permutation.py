"""The first entries of a keyed random permutation, without making all of it.

`draw_positions` says where a random permutation of ``0..size-1`` sends the
numbers ``0..count-1``, each on its own: O(count) work, no sort, no table, and
one fused loop on any device.

The flat positions are laid out as a grid of R rows and C columns that are about
as many, and a mixed-radix Feistel network shuffles the grid. One round turns
every row by a keyed hash of the row's number, one turns every column by a keyed
hash of the column's number:

    column ← column + h(row) mod C,    row ← row + h'(column) mod R

Either can be undone, so any number of them is a permutation of exactly R·C
positions; no draw falls outside and has to be repeated. Where R·C misses a few
of the positions (a prime number has no grid), each double round shuffles a
window of R·C successive ones, by turns the first and the last.

How good is it? Were the hashes random functions, an entry would be in a uniform
place after one double round. Two entries of one row part when the columns turn,
but for a chance 1/R, and are independent of each other from then on; so the
distribution of pairs is exact up to R⁻ᵈ after d double rounds. That is at most
2⁻³² here, and there is one double round more. A grid of few rows would need
many: up to 256 positions get the ranks of as many random 64-bit numbers
instead.

Everything is arithmetic of 32-bit integers, so the bits are the same wherever
it runs. Beyond the words that key it, nothing here is random.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

# Up to this size the ranks of random words are as cheap.
_LARGEST_RANKED = 256

# Positions are computed in multiples of this: XLA's loops on a CPU are vectors
# where the length is one, and up to seven times as slow where it is odd.
_VECTOR = 128

# Odd, from the finaliser of MurmurHash3 (Appleby, 2011).
_MULTIPLIERS = (np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35))


def word_count(size: int) -> int:
  """Number of random words that key a permutation of `size` positions.

  Args:
    size: In ``[1, 2³¹)``.

  >>> word_count(768 * 3072), word_count(12)
  (20, 24)
  """
  if size <= _LARGEST_RANKED:
    return 2 * size
  return 4 * double_rounds(grid(size)[0])


# A program of its own where nothing is being traced.
@functools.partial(jax.jit, static_argnames=("count", "size"), inline=True)
def draw_positions(words: jax.Array, count: int, size: int) -> jax.Array:
  """Where a random permutation of `size` positions sends the first `count`.

  Args:
    words: Independent random words, uint32 ``[word_count(size)]``.
    count: At most `size`.
    size: In ``[1, 2³¹)``.

  Returns:
    int32 ``[count]``, all different, in ``[0, size)``, in no order.

  >>> from pallas_kernels import threefry
  >>> words = threefry.random_words(jax.random.key(0), (word_count(1000),))
  >>> positions = draw_positions(words, 1000, 1000)
  >>> bool((jnp.sort(positions) == jnp.arange(1000)).all())
  True
  """
  # With the barriers, the words are made once and not for every position, and
  # the positions once and not in every loop that reads them.
  words = jax.lax.optimization_barrier(words)
  if size <= _LARGEST_RANKED:
    positions = _ranks(words.reshape(2, size), count)
  else:
    rows, cols = grid(size)
    keys = words.reshape(double_rounds(rows), 2, 2)
    numbers = jnp.arange(-(-count // _VECTOR) * _VECTOR, dtype=jnp.uint32)
    positions = shuffled(numbers, keys, size, rows, cols)
  positions = jax.lax.optimization_barrier(positions.astype(jnp.int32))
  return positions[:count]


@functools.lru_cache(maxsize=1024)
def grid(size: int) -> tuple[int, int]:
  """Rows and columns of the grid for `size` positions.

  Of all numbers of rows between ¾√size and √size the one whose full columns
  leave out the fewest positions, and of those the largest. So columns are
  fewer than 2¹⁶, and all but a few sizes of real leaves are covered exactly.

  >>> grid(768 * 3072), grid(1_000_003)
  ((1536, 1536), (1000, 1000))
  """
  root = math.isqrt(size)
  candidates = range(root, root * 3 // 4, -1)
  rows = min(candidates, key=lambda rows: size % rows)
  return rows, size // rows


def double_rounds(rows: int) -> int:
  """How often all rows and all columns are turned."""
  return 1 + next(d for d in itertools.count(1) if rows**d >= 2**32)


def shuffled(
  position: jax.Array, keys: jax.Array, size: int, rows: int, cols: int
) -> jax.Array:
  """Where Feistel's rounds send each position.

  Args:
    position: uint32, any shape; a number from `size` on has no meaning.
    keys: Two words for either half of each double round, uint32 ``[d, 2, 2]``.
    size: How many positions, at least ``rows * cols``.
    rows: At most `cols`.
    cols: Below 2¹⁶.

  Returns:
    uint32 like `position`.
  """
  row, col = position // np.uint32(cols), position % np.uint32(cols)
  left_out = np.uint32(size - rows * cols)
  for turn in range(keys.shape[0]):
    # Columns first: a block of successive numbers is whole rows, more or less,
    # and stays what it is if they turn.
    row = _plus(row, _hash(col, keys[turn, 0], rows), rows)
    col = _plus(col, _hash(row, keys[turn, 1], cols), cols)
    if left_out:
      start, following = (0, left_out) if turn % 2 == 0 else (left_out, 0)
      within = position - start < np.uint32(rows * cols)  # 0 - 1 wraps around
      permuted = row * np.uint32(cols) + col + start
      position = jnp.where(within, permuted, position)
      inside = position - following
      row, col = inside // np.uint32(cols), inside % np.uint32(cols)
  return position if left_out else row * np.uint32(cols) + col


def _hash(number: jax.Array, key: jax.Array, radix: int) -> jax.Array:
  """A number below `radix` < 2¹⁶ from one below 2¹⁶ and two words of key."""
  bits = (number ^ key[0]) * _MULTIPLIERS[0]
  bits = (bits ^ (bits >> 15) ^ key[1]) * _MULTIPLIERS[1]
  bits = bits ^ (bits >> 16)
  # The high word of bits · radix, as a 64-bit product would have it.
  low = (bits & 0xFFFF) * np.uint32(radix) >> 16
  return ((bits >> 16) * np.uint32(radix) + low) >> 16


def _plus(one: jax.Array, other: jax.Array, radix: int) -> jax.Array:
  """The sum modulo `radix` of two smaller numbers."""
  total = one + other
  return jnp.minimum(total, total - np.uint32(radix))  # which may wrap around


def _ranks(words: jax.Array, count: int) -> jax.Array:
  """Ranks of the first `count` of some 64-bit numbers among all of them.

  Args:
    words: High and low halves, uint32 ``[2, size]``.
    count: How many ranks.

  Returns:
    int32 ``[count]``; of equal numbers, whose chance is 2⁻⁶⁴ a pair, the first
    has the lower rank.
  """
  high, low = words[:, None, :]
  own_high, own_low = words[:, :count, None]
  number = np.arange(words.shape[1])
  before = jnp.asarray(number[None, :] < number[:count, None])
  tied = (low < own_low) | ((low == own_low) & before)
  below = (high < own_high) | ((high == own_high) & tied)
  return below.sum(axis=1, dtype=jnp.int32)
