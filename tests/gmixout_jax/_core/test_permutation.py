"""Tests `gmixout_jax/_core/permutation.py`: permutations, and random ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gmixout_jax._core import permutation
from pallas_kernels import threefry
from tests.combinations import tried


def positions(size, count, draws, seed=0):
  """Draws as a sampler makes them, [draws, count]."""

  @jax.jit
  @jax.vmap
  def draw(key):
    words = threefry.random_words(key, (permutation.word_count(size),))
    return permutation.draw_positions(words, count, size)

  return np.asarray(draw(jax.random.split(jax.random.key(seed), draws)))


def on_a_grid(rows, cols, size, count, draws, seed=0):
  """Draws by Feistel's rounds where ranks would be taken, too."""
  turns = permutation.double_rounds(rows)
  numbers = jnp.arange(count, dtype=jnp.uint32)

  @jax.jit
  @jax.vmap
  def draw(key):
    keys = threefry.random_words(key, (turns, 2, 2))
    return permutation.shuffled(numbers, keys, size, rows, cols)

  return np.asarray(draw(jax.random.split(jax.random.key(seed), draws)))


def spread(drawn, size):
  """Boolean masks [draws, size] of drawn positions."""
  masks = np.zeros((len(drawn), size), bool)
  masks[np.arange(len(drawn))[:, None], drawn] = True
  return masks


# Sizes that get ranks, then squares, products, primes and twice a prime.
@pytest.mark.parametrize(
  "size",
  tried(
    [1, 2, 3, 7, 12, 97, 256, 257, 263, 289, 300, 514, 1021, 1200, 4099, 65537],
    lambda size: size in (1, 2, 12, 256, 257, 289, 300, 514, 65537),
  ),
)
def test_every_position_is_taken_once(size):
  drawn = positions(size, size, draws=3)
  np.testing.assert_array_equal(
    np.sort(drawn, axis=1), np.broadcast_to(np.arange(size), drawn.shape)
  )
  if size > 12:
    assert not np.array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
  ("rows", "cols", "size"),
  tried(
    [(2, 3, 6), (3, 4, 12), (3, 4, 13), (3, 4, 15), (5, 7, 35)],
    lambda rows, cols, size: size not in (12, 15),
  ),
)
def test_small_grids_are_permuted(rows, cols, size):
  drawn = on_a_grid(rows, cols, size, size, draws=200)
  np.testing.assert_array_equal(
    np.sort(drawn, axis=1), np.broadcast_to(np.arange(size), drawn.shape)
  )


def test_of_the_largest_leaves():
  size = 2**31 - 1
  (drawn,) = positions(size, 5000, draws=1)
  assert drawn.min() >= 0
  assert len(set(drawn.tolist())) == 5000
  assert stats.kstest(drawn / size, "uniform").pvalue > 0.001


@pytest.mark.parametrize(
  "size", tried([100, 263, 1200], lambda size: size < 1200)
)
def test_a_draw_is_the_beginning_of_a_longer_one(size):
  np.testing.assert_array_equal(
    positions(size, 17, draws=2), positions(size, size, draws=2)[:, :17]
  )


@pytest.mark.parametrize(
  "size", [257, 263, 1000, 589824, 2359296, 1_000_003, 2**31 - 1]
)
def test_grids_leave_out_little_and_fit_into_16_bits(size):
  rows, cols = permutation.grid(size)
  assert rows <= cols < 2**16
  left_out = size - rows * cols
  assert 0 <= left_out < rows
  # How far from uniform one entry is left, see the module.
  turns = permutation.double_rounds(rows)
  assert (left_out / size) ** (turns - 1) < 2**-32
  assert rows ** (turns - 1) >= 2**32


@pytest.mark.parametrize("size", [263, 1200])
def test_rounds_against_integers_without_end(size):
  """Python's integers neither wrap around nor are put together from halves."""
  rows, cols = permutation.grid(size)
  turns = permutation.double_rounds(rows)
  words = threefry.random_words(jax.random.key(1), (4 * turns,))
  keys = np.asarray(words).reshape(turns, 2, 2).tolist()

  def hashed(number, key, radix):
    bits = (number ^ key[0]) * 0x85EBCA6B % 2**32
    bits = (bits ^ (bits >> 15) ^ key[1]) * 0xC2B2AE35 % 2**32
    return ((bits ^ (bits >> 16)) * radix) >> 32

  expected = []
  for position in range(size):
    for turn in range(turns):
      start = (size - rows * cols) * (turn % 2)
      if start <= position < start + rows * cols:
        row, col = divmod(position - start, cols)
        row = (row + hashed(col, keys[turn][0], rows)) % rows
        col = (col + hashed(row, keys[turn][1], cols)) % cols
        position = start + row * cols + col
    expected.append(position)
  drawn = permutation.draw_positions(words, size, size)
  np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize(
  ("rows", "cols", "size"),
  tried(
    [(3, 4, 12), (3, 3, 9), (2, 3, 7), (None, None, 12)],
    lambda *case: case in {(2, 3, 7), (None, None, 12)},
  ),
)
def test_every_set_is_as_likely(rows, cols, size):
  """Of all sets of three entries, some tens to hundreds."""
  if rows is None:
    drawn = positions(size, 3, draws=50_000)
  else:
    drawn = on_a_grid(rows, cols, size, 3, draws=50_000)
  codes = np.sort(drawn, axis=1) @ (size ** np.arange(3))
  _, counts = np.unique(codes, return_counts=True)
  assert len(counts) == math.comb(size, 3)
  assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(
  ("size", "kept"),
  tried(
    [(257, 0.1), (263, 0.5), (400, 0.5), (1020, 0.1)],
    lambda size, _: size == 263,
  ),
)
def test_entries_and_pairs_are_as_likely(size, kept):
  draws, count = 20_000, int(size * kept)
  masks = spread(positions(size, count, draws), size).astype(np.float32)
  chance = count / size
  deviation = np.sqrt(chance * (1 - chance) / draws)
  scores = (masks.mean(axis=0) - chance) / deviation
  squares = np.square(scores).sum() * (size - 1) / size
  assert 0.001 < stats.chi2(size - 1).cdf(squares) < 0.999
  chance = count * (count - 1) / (size * (size - 1))
  deviation = np.sqrt(chance * (1 - chance) / draws)
  scores = (masks.T @ masks / draws - chance) / deviation
  scores = scores[np.triu_indices(size, 1)]
  # Of pairs that share an entry the chances depend, by 1/size or so.
  assert np.square(scores).mean() == pytest.approx(1, abs=0.1)
  assert np.abs(scores).max() < stats.norm.isf(1e-3 / scores.size)


@pytest.mark.parametrize(
  "size", tried([400, 1021, 589824], lambda size: size != 400)
)
def test_neighbours_of_the_grid_and_rectangles(size):
  """What few rounds would betray: entries of one row or column, and both."""
  rows, cols = permutation.grid(size)
  draws, count = (20_000, size // 4) if size < 5000 else (6, size // 10)
  masks = spread(positions(size, count, draws), size)
  grid = masks[:, : rows * cols].reshape(draws, rows, cols)
  law = stats.hypergeom(size, count, 4)
  for down, right in [(1, 1), (1, 7), (8, 1), (rows // 2, cols // 2)]:
    corner = grid[:, :-down, :-right]
    beside, below = grid[:, :-down, right:], grid[:, down:, :-right]
    across = grid[:, down:, right:]
    pair = count * (count - 1) / (size * (size - 1))
    for found, chance in (
      (corner & beside, pair),
      (corner & below, pair),
      (corner & across, pair),
      (corner & beside & below & across, law.pmf(4)),
      (corner ^ beside ^ below ^ across, law.pmf(1) + law.pmf(3)),
    ):
      deviation = np.sqrt(chance * (1 - chance) / found.size)
      assert abs(found.mean() - chance) < 4 * deviation


def test_rows_of_a_leaf_have_hypergeometric_counts():
  """A leaf of 24 rows of 50, of whose shape the grid knows nothing."""
  masks = spread(positions(1200, 120, 10_000), 1200).reshape(-1, 24, 50)
  for axis, length in ((1, 24), (2, 50)):
    counts = masks.sum(axis=axis)
    law = stats.hypergeom(1200, 120, length)
    assert counts.mean() == pytest.approx(law.mean())
    assert counts.var() == pytest.approx(law.var(), rel=0.012)
