"""Tests `pallas_kernels/threefry.py` against JAX's own generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import threefry


@pytest.mark.parametrize("shape", [(1,), (7,), (5, 9), (2, 3, 4)])
@pytest.mark.parametrize("seed", [0, 123_456_789])
def test_words_are_those_of_jax_random_bits(shape, seed):
  key = jax.random.key(seed, impl="threefry2x32")
  expected = jax.random.bits(key, shape, jnp.uint32)
  np.testing.assert_array_equal(threefry.random_words(key, shape), expected)
  raw = jax.random.key_data(key)
  np.testing.assert_array_equal(threefry.random_words(raw, shape), expected)


def test_known_answers():
  """Vectors published with the reference implementation, Random123."""
  ones = 0xFFFFFFFF
  for key, counts, expected in [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((ones, ones), (ones, ones), (0x1CB996FC, 0xBB002BE7)),
    (
      (0x13198A2E, 0x03707344),
      (0x243F6A88, 0x85A308D3),
      (0xC4923A9C, 0x483DF7A0),
    ),
  ]:
    words = lambda pair: (jnp.uint32(pair[0]), jnp.uint32(pair[1]))
    result = threefry.threefry_2x32(words(key), words(counts))
    assert tuple(int(word) for word in result) == expected
