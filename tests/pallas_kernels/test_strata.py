"""Tests `pallas_kernels/strata.py` against exact Python integers."""

import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import strata

SIZES = [(1, 1), (10, 3), (127, 13), (768, 77), (3072, 307), (100_003, 60_000)]


@pytest.mark.parametrize(("cols", "count"), SIZES)
def test_starts_are_the_floor_of_the_fraction(cols, count):
  expected = [j * cols // count for j in range(count + 1)]
  starts = strata.stratum_start(
    np.arange(count + 1, dtype=np.int64), cols, count
  )
  np.testing.assert_array_equal(starts, expected)


@pytest.mark.parametrize(("cols", "count"), SIZES)
def test_starts_fit_in_32_bits(cols, count):
  expected = [j * cols // count for j in range(count + 1)]
  starts = strata.stratum_start(
    jnp.arange(count + 1, dtype=jnp.uint32), cols, count
  )
  np.testing.assert_array_equal(starts, expected)


@pytest.mark.parametrize(("cols", "count"), SIZES)
def test_each_column_lies_in_its_stratum(cols, count):
  starts = np.array([j * cols // count for j in range(count + 1)])
  stratum = strata.stratum_of_column(cols, count)
  columns = np.arange(cols)
  assert np.all(starts[stratum] <= columns)
  assert np.all(columns < starts[stratum + 1])


@pytest.mark.parametrize("width", [1, 2, 10, 65_535, 65_536, 2**31 - 1])
def test_offset_is_the_high_word_of_the_product(width, rng):
  bits = rng.integers(0, 2**32, 1000, dtype=np.uint64)
  bits[:2] = 0, 2**32 - 1
  expected = [int(word) * width >> 32 for word in bits]
  offsets = strata.offset_in_stratum(
    jnp.asarray(bits, jnp.uint32), jnp.full(1000, width, jnp.uint32)
  )
  np.testing.assert_array_equal(offsets, expected)


@pytest.mark.parametrize(
  ("cols", "kept", "count"),
  [(768, 0.1, 77), (3, 0.1, 1), (1, 0.5, 1), (10, 1.0, 10), (25, 0.1, 2)],
)
def test_stratum_count_rounds_and_keeps_one(cols, kept, count):
  assert strata.stratum_count(cols, kept) == count
