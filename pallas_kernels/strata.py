"""One entry per stratum: the integer arithmetic of the `stratified` sampler.

A row of ``cols`` entries is cut into ``count`` strata; stratum ``j`` is
``[⌊j·cols/count⌋, ⌊(j+1)·cols/count⌋)``. One 32-bit word per stratum picks
one entry in it, so a row's active entries come out sorted, exact in number,
and without a sort. The samplers of `gmixout_jax` and the GPU kernels must agree
bit for bit, so the formulas stand here, below both, and use only operations
that NumPy, XLA and the kernel languages define alike: unsigned 32-bit
multiply, add, shift and mask, and floor division.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


def stratum_count(cols: int, kept: float) -> int:
  """Number of strata, hence of active entries, in a row of `cols` entries.

  Args:
    cols: Length of the row, at least 1.
    kept: Wanted fraction of active entries, in (0, 1].

  Returns:
    ``round(cols * kept)``, but at least one, so that no row stays without a
    trained entry; and less than `cols` if `kept` is less than 1, so that none
    is trained whole.

  >>> stratum_count(768, 0.1), stratum_count(3, 0.1), stratum_count(10, 0.95)
  (77, 1, 9)
  """
  count = round(cols * kept)
  return max(1, count if kept == 1 else min(count, cols - 1))


def row_view(shape: tuple[int, ...], kept: float) -> tuple[int, ...]:
  """A leaf's shape with as many of its last axes merged as a row needs.

  A row of three entries cannot keep a tenth of them. Axes are merged from the
  last one on until a row's count is within a tenth of ``cols · kept``, or the
  leaf is one row, whose count is within an entry. It depends on no axis before
  the row, so a part of a leaf is cut as the whole is.

  Args:
    shape: Shape of the leaf, at least one axis.
    kept: Wanted fraction of active entries, in (0, 1].

  Returns:
    The shape with its last axes merged into one, ``[..., cols]``.

  >>> row_view((768, 3072), 0.1), row_view((64, 32, 3, 3), 0.1)
  ((768, 3072), (64, 288))
  >>> row_view((300, 1), 0.1)
  (300,)
  """
  for axis in reversed(range(1, len(shape))):
    cols = math.prod(shape[axis:])
    count = stratum_count(cols, kept)
    is_right = abs(count - cols * kept) <= 0.1 * cols * kept + 1e-9
    if is_right and (count < cols or kept == 1):
      return (*shape[:axis], cols)
  return (math.prod(shape),)


def stratum_start[Integers: (np.ndarray, jax.Array)](
  j: Integers, cols: int, count: int
) -> Integers:
  """First column of stratum `j`, ``⌊j·cols/count⌋``.

  Computed as ``j·q + ⌊j·r/count⌋`` with ``cols = q·count + r``, whose largest
  intermediate is ``count²``: 32 bits hold it while ``count < 2¹⁶``, where the
  plain formula would already overflow for ``cols = 10⁵``.

  Args:
    j: Stratum numbers in ``[0, count]``, an integer array of any shape.
    cols: Length of the row.
    count: Number of strata in it.

  Returns:
    Integers of the shape and dtype of `j`.

  >>> stratum_start(np.arange(4), cols=10, count=3)
  array([ 0,  3,  6, 10])
  """
  quotient, remainder = divmod(cols, count)
  return j * quotient + j * remainder // count


def stratum_of_column(cols: int, count: int) -> np.ndarray:
  """Stratum that each column belongs to: the inverse of `stratum_start`.

  Args:
    cols: Length of the row.
    count: Number of strata in it.

  Returns:
    int32 array ``[cols]``, non-decreasing from 0 to ``count - 1``.

  >>> stratum_of_column(cols=10, count=3)
  array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2], dtype=int32)
  """
  starts = stratum_start(np.arange(count + 1, dtype=np.int64), cols, count)
  return np.repeat(np.arange(count, dtype=np.int32), np.diff(starts))


def offset_in_stratum(bits: jax.Array, width: jax.Array) -> jax.Array:
  """Maps random words to offsets in ``[0, width)``.

  The offset is the high word of the 64-bit product ``bits · width``. Beside
  ``bits % width`` it costs no division, and its bias is as small: an offset's
  probability differs from ``1/width`` by at most 2⁻³². Without 64-bit
  integers the product is put together from 16-bit halves.

  Args:
    bits: uint32 random words.
    width: Widths of the strata, uint32, broadcastable with `bits`.

  Returns:
    uint32 offsets.

  >>> words = jnp.array([0, 2**31, 2**32 - 1], jnp.uint32)
  >>> offset_in_stratum(words, jnp.full((3,), 10, jnp.uint32))
  Array([0, 5, 9], dtype=uint32)
  """
  low, high = bits & 0xFFFF, bits >> 16
  width_low, width_high = width & 0xFFFF, width >> 16
  carry = high * width_low + (low * width_low >> 16)
  middle = low * width_high + (carry & 0xFFFF)
  return high * width_high + (carry >> 16) + (middle >> 16)


# Where nothing is being traced, a program and not a dozen, each compiled for
# every shape; in a trace, what is written here.
@functools.partial(jax.jit, static_argnames="cols", inline=True)
def draw_columns(bits: jax.Array, cols: int) -> jax.Array:
  """Turns one random word per stratum into the active columns of each row.

  Args:
    bits: uint32 words ``[..., count]``, one per stratum of each row.
    cols: Length of a row, at least ``count``.

  Returns:
    int32 columns ``[..., count]``, strictly increasing along the last axis.

  >>> draw_columns(jnp.zeros((1, 3), jnp.uint32), cols=10)
  Array([[0, 3, 6]], dtype=int32)
  """
  count = bits.shape[-1]
  bounds = stratum_start(np.arange(count + 1, dtype=np.int64), cols, count)
  shape = (1,) * (bits.ndim - 1) + (count,)
  starts = jnp.asarray(bounds[:-1].reshape(shape), jnp.int32)
  widths = jnp.asarray(np.diff(bounds).reshape(shape), jnp.uint32)
  drawn = starts + offset_in_stratum(bits, widths).astype(jnp.int32)
  # Without the barrier XLA takes a hundred cheap operations for cheap, and does
  # them over again in every loop that reads the columns.
  return jax.lax.optimization_barrier(drawn)
