"""A leaf whose rows are cut into strata: what each packed slot stands for.

A leaf is seen as a matrix ``[rows, cols]`` of which every row has k active
entries: rows lie along its last axis, or along as many of its last axes as
`strata.row_view` merges. They are packed row by row; *slot* ``p = row·k + j``
is the entry that stratum j of the row has drawn, with the random word at flat
position p. Kernels number lanes by slots, so this is all they need to know.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import strata, threefry

# Kernels compute positions in 32 bits, and some of their compilers treat them
# as signed.
_LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class StratifiedLeaf:
  """The static side of a leaf and its strata.

  Attributes:
    shape: Shape of the leaf, ``[..., cols]``, at least one axis.
    kept: Wanted fraction of active entries, in (0, 1].

  >>> leaf = StratifiedLeaf((4, 30), kept=0.1)
  >>> leaf.packed_shape, leaf.kept_fraction
  ((4, 3), 0.1)
  """

  shape: tuple[int, ...]
  kept: float

  def __post_init__(self):
    if not self.shape or 0 in self.shape:
      raise ValueError(
        f"a leaf must have at least one entry, got shape {self.shape}."
      )
    if not 0 < self.kept <= 1:
      raise ValueError(f"kept must be in (0, 1], got {self.kept!r}.")

  @functools.cached_property
  def view(self) -> tuple[int, ...]:
    """The shape with the axes of a row merged, ``[..., cols]``."""
    return strata.row_view(self.shape, self.kept)

  @property
  def cols(self) -> int:
    """Length of a row."""
    return self.view[-1]

  @property
  def count(self) -> int:
    """Active entries of a row, k."""
    return strata.stratum_count(self.cols, self.kept)

  @property
  def size(self) -> int:
    """Number of entries."""
    return math.prod(self.shape)

  @property
  def packed_shape(self) -> tuple[int, ...]:
    """``[..., k]``: the view with k instead of cols."""
    return (*self.view[:-1], self.count)

  @property
  def packed_size(self) -> int:
    """Number of active entries."""
    return math.prod(self.packed_shape)

  @property
  def kept_fraction(self) -> float:
    """The exact fraction of active entries, k/cols: the paper's s."""
    return self.count / self.cols

  def check_positions(self) -> None:
    """Raises ValueError unless a GPU kernel can address the leaf."""
    check_size(self.shape)
    if self.cols * self.count > _LARGEST:
      raise ValueError(
        f"a leaf of shape {self.shape} has {self.count} strata in rows of"
        f" {self.cols}; the GPU kernels need their product to be at most"
        f" {_LARGEST}, use implementation='xla'."
      )

  def check_packed(self, name: str, array: jax.Array) -> None:
    """Raises ValueError unless `array`, called `name`, is packed like it."""
    if array.shape != self.packed_shape:
      raise ValueError(
        f"{name} must have the packed shape {self.packed_shape} of a leaf of"
        f" shape {self.shape} at kept fraction {self.kept}, got {array.shape}."
      )

  def columns(self, seed: jax.Array) -> jax.Array:
    """Draws the active columns of each row, int32 ``[..., k]``, increasing."""
    position = threefry.flat_position(self.packed_shape) + seed[2] * np.uint32(
      self.count
    )
    return strata.draw_columns(threefry.words_at(seed, position), self.cols)

  def positions(self, slot: jax.Array, seed: jax.Array) -> jax.Array:
    """Flat position of the entry behind each slot: `columns`, in a kernel.

    Args:
      slot: Slot numbers, uint32, any shape.
      seed: See `seed`; any indexable by 0, 1, 2, such as a kernel's reference.

    Returns:
      uint32 like `slot`; of no meaning where `slot` is beyond the last.
    """
    count, cols = np.uint32(self.count), np.uint32(self.cols)
    word = threefry.words_at(seed, slot + seed[2] * count)
    row = slot // count
    stratum = slot - row * count
    start = strata.stratum_start(stratum, self.cols, self.count)
    end = strata.stratum_start(stratum + np.uint32(1), self.cols, self.count)
    return row * cols + start + strata.offset_in_stratum(word, end - start)

  def slot_at(self, position: jax.Array) -> jax.Array:
    """Slot of the stratum that holds a flat position, uint32.

    ``⌊j·cols/k⌋ <= column`` holds for j up to ``⌊((column+1)·k − 1)/cols⌋``.
    """
    count, cols = np.uint32(self.count), np.uint32(self.cols)
    row = position // cols
    column = position - row * cols
    above = (column + np.uint32(1)) * count - np.uint32(1)
    return row * count + above // cols

  def slots_within(self, length: int) -> int:
    """Upper bound of the strata that any `length` successive entries touch."""
    return length // (self.cols // self.count) + 2


def check_size(shape: tuple[int, ...]) -> None:
  """Raises ValueError if a leaf has more entries than 32 bits can number."""
  if math.prod(shape) > _LARGEST:
    raise ValueError(
      f"a leaf of shape {shape} has {math.prod(shape)} entries; the GPU"
      f" kernels address at most {_LARGEST}, use implementation='xla'."
    )


def check_weights(name: str, array: jax.Array) -> None:
  """Raises ValueError unless the array, called `name`, holds floats that fit.

  They fit into float32, which all implementations compute in.
  """
  floats = jnp.issubdtype(array.dtype, jnp.floating)
  if not floats or array.dtype.itemsize > 4:
    raise ValueError(
      f"{name} must be float32 or a narrower float, got {array.dtype}."
    )


def check_divisor(divisor: float) -> None:
  """Raises ValueError unless s, which kernels divide by, is above 0."""
  if not divisor > 0:
    raise ValueError(f"divisor must be above 0, got {divisor!r}.")


def seed(key: jax.Array, first_row: jax.typing.ArrayLike = 0) -> jax.Array:
  """What a kernel needs to draw: the key's two words, and the first row.

  Args:
    key: Typed threefry key, or raw uint32 key data ``[2]``.
    first_row: Rows of the whole leaf that precede this part of it, in the
      view that both have.

  Returns:
    uint32 ``[3]``.

  Raises:
    ValueError: If `key` is neither.
  """
  key = threefry.key_data(key)
  first = jnp.asarray(first_row).astype(jnp.uint32)
  return jnp.concatenate([key, first[None]])


def bernoulli_active(
  seed: jax.Array, position: jax.Array, kept: float
) -> jax.Array:
  """Whether each entry is active if each is on its own with probability kept.

  Args:
    seed: See `seed`.
    position: Flat positions in the whole leaf, uint32.
    kept: Probability in (0, 1].
  """
  return threefry.words_at(seed, position) <= np.uint32(
    largest_active_word(kept)
  )


def largest_active_word(kept: float) -> int:
  """Largest random word that makes an entry active with probability kept.

  Not the smallest that does not: for kept = 1 that would need 33 bits.
  """
  return max(1, round(kept * 2**32)) - 1


# A program each where nothing is being traced, as `strata.draw_columns`.
@functools.partial(jax.jit, inline=True)
def take(dense: jax.Array, columns: jax.Array) -> jax.Array:
  """Reads the active entries, ``[..., cols]`` to ``[..., k]``."""
  return jnp.take_along_axis(dense, columns, axis=-1, mode="promise_in_bounds")


@functools.partial(jax.jit, static_argnames="cols", inline=True)
def put(packed: jax.Array, columns: jax.Array, cols: int) -> jax.Array:
  """Spreads packed values over zeros, ``[..., k]`` to ``[..., cols]``.

  Each column asks its own stratum whether it was drawn, which XLA fuses into
  what follows. A scatter would be a pass of its own over the dense array and,
  on CPU, takes twice as long.
  """
  # Or XLA would fuse what made the packed values as well, and compute it for
  # every dense entry.
  packed = jax.lax.optimization_barrier(packed)
  stratum = strata.stratum_of_column(cols, packed.shape[-1])
  own = np.arange(cols, dtype=np.int32)
  own = own.reshape((1,) * (packed.ndim - 1) + (-1,))
  drawn = columns[..., stratum] == own
  return jnp.where(drawn, packed[..., stratum], jnp.zeros((), packed.dtype))
