"""How many entries a Bernoulli mask has: Binomial counts from random words.

If each of n entries is active on its own with probability s, their number is
Binomial(n, s), and given the number every set of that size is as likely. So a
mask needs one count and a permutation, rather than a word for every entry.

The count is the number of thresholds that a random 64-bit number has reached.
The thresholds are 2⁶⁴ times the cumulative distribution, rounded. They are made
on the host with Python's integers and searched in 32-bit halves: no float and
no library decides a mask, and 64-bit arrays need not be enabled.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# The most likely count's weight. Divisions round down the weights of the others
# by less than one each, which moves a threshold by less than 2⁻⁷⁰ of a unit.
_LARGEST_WEIGHT = 2**192


class Table(NamedTuple):
  """Thresholds of a distribution of counts.

  Attributes:
    first: The smallest count, with a chance of 2⁻⁶⁴ or so or more.
    thresholds: 2⁶⁴ times the chances of counts up to first, first + 1, ...:
      high and low words, uint32 ``[2, m]``, non-decreasing.
  """

  first: int
  thresholds: np.ndarray


@functools.lru_cache(maxsize=1024)
def table(size: int, chance: float, most: int) -> Table:
  """The thresholds of min(Binomial(size, chance), most).

  Args:
    size: Number of entries, at least 1.
    chance: Probability of each, in (0, 1]; what is meant is the very number
      that the float stands for.
    most: Largest count.

  >>> found = table(2, 0.5, most=2)  # 1/4 of all words, and 3/4
  >>> found.first, [hex(word) for word in found.thresholds[0]]
  (0, ['0x40000000', '0xc0000000'])
  """
  active, entries = chance.as_integer_ratio()
  idle = entries - active
  if idle == 0:
    return Table(min(size, most), np.zeros((2, 0), np.uint32))
  mode = min((size + 1) * active // entries, size)
  below, above = [_LARGEST_WEIGHT], []
  for count in range(mode, 0, -1):
    weight = below[-1] * count * idle // ((size - count + 1) * active)
    if weight == 0:
      break
    below.append(weight)
  weight = _LARGEST_WEIGHT
  for count in range(mode, size):
    weight = weight * (size - count) * active // ((count + 1) * idle)
    if weight == 0:
      break
    above.append(weight)
  weights = [*reversed(below), *above]
  lowest = mode - len(below) + 1
  total = sum(weights)
  rounded = [
    ((cumulated << 65) + total) // (2 * total)
    for cumulated in itertools.accumulate(weights)
  ]
  # Counts that no 64-bit number leads to have no threshold between them.
  kept = [
    (lowest + i, threshold)
    for i, threshold in enumerate(rounded)
    if 0 < threshold < 2**64 and lowest + i < most
  ]
  if not kept:
    return Table(min(mode, most), np.zeros((2, 0), np.uint32))
  words = [divmod(threshold, 2**32) for _, threshold in kept]
  return Table(kept[0][0], np.array(words, np.uint32).T)


@functools.partial(
  jax.jit, static_argnames=("size", "chance", "most"), inline=True
)
def draw_count(
  words: jax.Array, size: int, chance: float, most: int
) -> jax.Array:
  """Draws from min(Binomial(size, chance), most).

  Args:
    words: Two random words, uint32 ``[2]``.
    size: See `table`.
    chance: See `table`.
    most: See `table`.

  Returns:
    int32 scalar.

  >>> draw_count(jnp.array([2**31, 0], jnp.uint32), 2, 0.5, most=2)
  Array(1, dtype=int32)
  """
  first, (high, low) = table(size, chance, most)
  reached = (words[0] > high) | ((words[0] == high) & (words[1] >= low))
  return np.int32(first) + reached.sum(dtype=jnp.int32)
