"""Which entries an episode trains: a pure function of (key, episode, path).

No mask is stored anywhere. The active entries of a leaf are drawn from
``fold_in(fold_in(key, episode), crc32(path))`` whenever they are needed, so
they agree bit for bit after a resume, on every device and process, and for any
sharding of the leaf. Only threefry keys will do: other generators change their
stream under vmap or from platform to platform.

To add a sampler, give one of the layouts of `layouts` a `draw` method, and
list it in `SAMPLERS` and `MASK_DISTRIBUTION`.
"""

import functools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmixout_jax._core import binomial, layouts, permutation
from pallas_kernels import strata, threefry

# A Bernoulli draw has room for its mean count and this many standard
# deviations more.
_BERNOULLI_MARGIN = 8.0


class Stratified(layouts.PerRow):
  """Per row, one uniformly drawn entry in each of k strata (the default).

  ``k = max(1, round(cols · kept))``, and less than cols unless all are kept: an
  exact count in every row, columns in order, no sort, O(k) work, and rows that
  may live on different devices.
  """

  def draw(self, key: jax.Array, like: jax.Array) -> jax.Array:
    """Active columns of each row, int32 ``[..., k]``, increasing."""
    words = threefry.random_words(
      key, self.packed_shape, self.packed_sharding(like)
    )
    return strata.draw_columns(words, self.rows.cols)


class Neuron(layouts.WholeInputs):
  """Whole inputs, one per stratum: the mask of the original Mixout.

  An input is trained with all of its outgoing weights (Lee, Cho & Kang, 2020),
  in each layer of a stack on its own. The count is exact here, where the
  original tosses a coin per neuron.
  """

  def draw(self, key: jax.Array, like: jax.Array) -> jax.Array:
    """Active inputs, int32 ``[*layers, r]``, increasing."""
    del like  # a few hundred numbers: every device draws them all
    words = threefry.random_words(key, (*self.layers, self.count))
    return strata.draw_columns(words, self.inputs)


class Uniform(layouts.Anywhere):
  """Exactly ``int(size · kept)`` entries of the leaf, without replacement.

  The mask distribution of the GMixout authors' code: the first so many
  positions of a random permutation, without making the rest of it.
  """

  @property
  def packed_shape(self) -> tuple[int, ...]:
    """``[n]`` with ``n = int(size · kept)``."""
    return (whole_count(self.size, self.kept),)

  def draw(self, key: jax.Array, like: jax.Array) -> jax.Array:
    """Active flat positions, int32 ``[n]``, in no order."""
    del like  # every device draws them all
    words = threefry.random_words(key, (permutation.word_count(self.size),))
    return permutation.draw_positions(words, *self.packed_shape, self.size)


class Bernoulli(layouts.Anywhere):
  """Each entry on its own with probability ``kept``: the paper's text.

  Their number is drawn first, then so many entries as by `Uniform`. A packed
  array has room for the mean number and eight standard deviations more. Where
  a draw would have more entries than that, it has as many as there is room for:
  a chance below 1e-14 a draw where the mean is a thousand or more, and of at
  most 1.2e-7, which it has where the mean is one.
  """

  all_used = False

  @property
  def packed_shape(self) -> tuple[int, ...]:
    """``[n]`` with room for eight standard deviations above the mean."""
    mean = self.size * self.kept
    margin = _BERNOULLI_MARGIN * math.sqrt(mean * (1 - self.kept))
    return (min(self.size, math.ceil(mean + margin)),)

  @property
  def kept_fraction(self) -> float:
    """The probability itself: the count varies from draw to draw."""
    return self.kept

  def draw(self, key: jax.Array, like: jax.Array) -> jax.Array:
    """Active flat positions, int32 ``[n]``, in no order, then unused slots."""
    del like  # every device draws them all
    (room,) = self.packed_shape
    words = threefry.random_words(key, (2 + permutation.word_count(self.size),))
    count = binomial.draw_count(words[:2], self.size, self.kept, room)
    positions = permutation.draw_positions(words[2:], room, self.size)
    used = jnp.arange(room, dtype=jnp.int32) < count
    return jnp.where(used, positions, np.int32(self.size))


def whole_count(size: int, kept: float) -> int:
  """``int(size · kept)`` where `kept` is what rounding has left of a fraction.

  >>> whole_count(300, round(1 - 2 / 3, 12))  # and not 99
  100
  """
  return int(size * kept + 1e-6 + 1e-12 * size)


SAMPLERS: dict[str, type[layouts.Layout]] = {
  "stratified": Stratified,
  "uniform": Uniform,
  "bernoulli": Bernoulli,
  "neuron": Neuron,
}

# Which bits a sampler draws, per name: 1 is what version 0.1.0 drew. To be
# raised whenever the pinned digest of a sampler changes, as a state that was
# saved in mid-episode then fits another mask than the one it would be given.
MASK_DISTRIBUTION: dict[str, int] = {
  "stratified": 1,
  "uniform": 2,
  "bernoulli": 2,
  "neuron": 1,
}


def leaf_layout(
  sampler: str,
  path: str,
  shape: tuple[int, ...],
  kept: float,
  axes: str | None = None,
) -> layouts.Layout:
  """Binds a sampler to one leaf.

  Args:
    sampler: A name in `SAMPLERS`.
    path: The leaf's '/'-joined path, for messages.
    shape: Its shape, at least two axes.
    kept: Wanted fraction of active entries, in (0, 1].
    axes: What its axes mean, see `axes.letters`; None if unknown.

  Returns:
    The layout of the leaf's active entries.

  Raises:
    ValueError: If the leaf is too small to keep one entry and not all, or too
      large for 32-bit positions, or the sampler must know what its axes mean.

  >>> layout = leaf_layout("stratified", "w", (4, 30), kept=0.1)
  >>> layout.packed_shape, layout.kept_fraction
  ((4, 3), 0.1)
  """
  layout = SAMPLERS[sampler](tuple(shape), kept, axes)
  one, several, units = "entry", "entries", layout.size
  if isinstance(layout, layouts.WholeInputs):
    if axes is None:
      raise ValueError(
        f"sampler={sampler!r} trains whole inputs, and which axes of leaf"
        f" {path!r} of shape {layout.shape} they are is not known: pass axes=,"
        " a function (path, leaf) -> one letter an axis, such as 'lio' for"
        " [layers, inputs, outputs], or axes='torch' for PyTorch's layouts; or"
        " leave the leaf out of `target`."
      )
    one, several, units = "input", "inputs", layout.inputs
  least = 0.5 if one == "input" else 1 - 1e-6
  if units * kept < least or (units == 1 and kept < 1):
    part = f"one of its {units} {several}"
    part = part if units > 1 else f"a part of its one {one}"
    raise ValueError(
      f"leaf {path!r} of shape {layout.shape} is too small to keep {part} at"
      f" kept fraction {kept}: lower `sparsity` or leave the leaf out of"
      " `target`."
    )
  limit = 2**31 - 1
  if layout.largest_position > limit:
    raise ValueError(
      f"leaf {path!r} of shape {layout.shape} needs positions up to"
      f" {layout.largest_position} with sampler {sampler!r}; at most {limit}"
      " fit in 32 bits."
    )
  return layout


def leaf_keys(
  key: jax.Array, episode: jax.Array, paths: Sequence[str]
) -> jax.Array:
  """Keys of the masks of all leaves in one episode.

  They are made together, as making one alone is as much to compile.

  Args:
    key: Typed threefry key, or raw uint32 key data ``[2]``.
    episode: Number of the episode, an integer scalar.
    paths: The '/'-joined paths of n leaves.

  Returns:
    Typed keys ``[n]``.
  """
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.wrap_key_data(key, impl="threefry2x32")
  checksums = np.array([zlib.crc32(p.encode()) for p in paths], np.uint32)
  return _folded(key, episode, checksums)


# A program of its own where nothing is being traced.
@functools.partial(jax.jit, inline=True)
def _folded(
  key: jax.Array, episode: jax.Array, checksums: jax.Array
) -> jax.Array:
  key = jax.random.fold_in(key, episode)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, checksums)


def draw_all(
  drawn: Sequence[layouts.Layout], keys: jax.Array, likes: Sequence[jax.Array]
) -> list[jax.Array]:
  """Draws the indices of many leaves: of those that are alike in one program.

  Leaves of one shape are drawn two at a time. XLA makes the words of a leaf
  that is drawn alone anew in every loop that reads its columns, in spite of the
  barrier in `strata.draw_columns`; a slice of a stack it makes once, and the
  same code serves all leaves of the shape. (An update of ViT-Ti's 72 matrices
  compiles in a quarter of the time on a CPU.) Larger stacks would compile no
  faster, and be in memory for as long as one of their leaves is needed.

  Args:
    drawn: The layout of each leaf.
    keys: Typed keys ``[n]``, from `leaf_keys`.
    likes: The leaves.

  Returns:
    The indices of each.
  """
  groups: dict[Any, list[int]] = {}
  for i, (layout, like) in enumerate(zip(drawn, likes, strict=True)):
    alike = (layout, like.dtype, layout.packed_sharding(like))
    groups.setdefault(alike, []).append(i)
  indices: list[Any] = [None] * len(drawn)
  for members in groups.values():
    while members:
      # Never one alone at the end.
      count = len(members) if len(members) <= 3 else 2
      stacked, members = members[:count], members[count:]
      layout, like = drawn[stacked[0]], likes[stacked[0]]
      stack = _draw_stack(layout, keys[np.array(stacked)], like)
      for place, i in enumerate(stacked):
        indices[i] = jax.lax.optimization_barrier(stack[place])
  return indices


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _draw_stack(
  layout: layouts.Layout, keys: jax.Array, like: jax.Array
) -> jax.Array:
  return jax.vmap(lambda key: layout.draw(key, like))(keys)
