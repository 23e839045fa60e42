"""Tests `gmixout_jax/_core/binomial.py` against rational numbers and SciPy."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gmixout_jax._core import binomial


def thresholds(size, chance, most):
  """First count, and thresholds as Python's integers."""
  first, words = binomial.table(size, chance, most)
  assert words.dtype == np.uint32
  high, low = words.tolist()
  return first, [(a << 32) + b for a, b in zip(high, low, strict=True)]


@pytest.mark.parametrize("size", [1, 2, 7, 40, 200])
@pytest.mark.parametrize("chance", [0.1, 1 / 3, 0.5, 0.9, 1 - 1e-12, 1e-3, 1.0])
@pytest.mark.parametrize("part", [1.0, 0.3])
def test_thresholds_are_the_rounded_law(size, chance, part):
  most = math.ceil(part * size)
  active, entries = chance.as_integer_ratio()
  ways = [
    math.comb(size, k) * active**k * (entries - active) ** (size - k)
    for k in range(size + 1)
  ]
  assert sum(ways) == entries**size
  below = [
    round(Fraction(2**64 * cumulated, entries**size))
    for cumulated in itertools.accumulate(ways)
  ]
  first, found = thresholds(size, chance, most)
  # Counts up to the first, and from the last on, are those that are drawn.
  assert all(below[k] == 0 for k in range(first))
  assert found == below[first : first + len(found)]
  last = first + len(found)
  assert last == most or below[last] == 2**64


@pytest.mark.parametrize(
  ("size", "chance"), [(2359296, 0.1), (10**6, 0.9), (2**31 - 1, 1e-4)]
)
def test_thresholds_of_large_leaves(size, chance):
  first, found = thresholds(size, chance, most=size)
  counts = first + np.arange(len(found))
  expected = stats.binom.cdf(counts, size, chance)
  ours = np.array(found, float) / 2**64
  np.testing.assert_allclose(ours, expected, rtol=1e-7, atol=1e-11)
  # All but 2⁻⁶³ of the law.
  assert np.all(np.diff(found) >= 0)
  assert found[0] < 4
  assert found[-1] > 2**64 - 4


@pytest.mark.parametrize("x64", [False, True])
def test_a_count_is_the_number_of_thresholds_reached(x64):
  size, chance, most = 50, 0.3, 20
  first, found = thresholds(size, chance, most)
  rng = np.random.default_rng(0)
  numbers = [0, 2**64 - 1, 2**63, 2**32 - 1, 2**32]
  numbers += [t + step for t in found for step in (-1, 0, 1)]
  numbers += rng.integers(0, 2**64, 200, np.uint64).tolist()
  words = np.array([divmod(n, 2**32) for n in numbers], np.uint32)
  with jax.enable_x64(x64):
    draw = jax.vmap(lambda w: binomial.draw_count(w, size, chance, most))
    counts = draw(jnp.asarray(words))
  assert counts.dtype == jnp.int32
  expected = [first + sum(n >= t for t in found) for n in numbers]
  np.testing.assert_array_equal(counts, expected)
  assert max(expected) == most


@pytest.mark.parametrize(("size", "chance"), [(20, 0.1), (600, 0.2)])
def test_counts_follow_the_law(size, chance):
  words = jax.random.bits(jax.random.key(0), (20_000, 2))
  draw = jax.vmap(lambda w: binomial.draw_count(w, size, chance, size))
  counts = np.bincount(jax.jit(draw)(words), minlength=size + 1)
  expected = 20_000 * stats.binom.pmf(np.arange(size + 1), size, chance)
  usual = expected > 5
  found = [*counts[usual], counts[~usual].sum()]
  law = [*expected[usual], expected[~usual].sum()]
  assert stats.chisquare(found, law, sum_check=False).pvalue > 0.001


def test_probabilities_zero_and_one():
  words = jnp.array([5, 6], jnp.uint32)
  assert binomial.draw_count(words, 12, 1.0, 12) == 12
  assert binomial.draw_count(words, 12, 1.0, 7) == 7
