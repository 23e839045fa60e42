"""Tests `pallas_kernels/leaf.py` against the masks of gmixout_jax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmixout_jax._core import samplers
from pallas_kernels import clip_shapes
from pallas_kernels import leaf as leaves
from pallas_kernels.masked_mix.api import masked_mix
from pallas_kernels.pack.api import pack
from pallas_kernels.packed_step import api as packed_step_api

SHAPES = {
  name: shape for name, shape in clip_shapes.EDGES.items() if len(shape) > 1
} | {"b16_attention": (768, 768)}
CASES = [(name, 0.1) for name in SHAPES] + [
  ("odd_columns", 0.02),
  ("odd_columns", 0.5),
  ("odd_columns", 1.0),
]
KEY = jax.random.key(7, impl="threefry2x32")


@pytest.mark.parametrize(("name", "kept"), CASES)
def test_columns_are_those_of_the_sampler(name, kept):
  shape = SHAPES[name]
  layout = samplers.Stratified(shape, kept)
  leaf = leaves.StratifiedLeaf(shape, kept)
  assert leaf.packed_shape == layout.packed_shape
  assert leaf.kept_fraction == pytest.approx(layout.kept_fraction, rel=1e-15)
  expected = layout.draw(KEY, jnp.zeros(shape))
  columns = jax.jit(leaf.columns)(leaves.seed(KEY))
  np.testing.assert_array_equal(columns, expected)

  flat = np.asarray(columns).reshape(-1, leaf.count)
  flat = np.arange(len(flat))[:, None] * leaf.cols + flat
  slot = np.arange(leaf.packed_size, dtype=np.uint32)
  position = jax.jit(leaf.positions)(slot, leaves.seed(KEY))
  np.testing.assert_array_equal(position, flat.reshape(-1))
  np.testing.assert_array_equal(jax.jit(leaf.slot_at)(position), slot)


@pytest.mark.parametrize(("name", "kept"), CASES)
def test_a_window_never_touches_more_strata_than_the_bound(name, kept):
  leaf = leaves.StratifiedLeaf(SHAPES[name], kept)
  slot = np.asarray(leaf.slot_at(np.arange(leaf.size, dtype=np.uint32)))
  for length in {1, min(7, leaf.size), min(2048, leaf.size)}:
    touched = slot[length - 1 :] - slot[: leaf.size - length + 1] + 1
    assert np.all(touched <= leaf.slots_within(length))


@pytest.mark.parametrize("kept", [0.1, 0.5, 1.0])
def test_bernoulli_asks_a_word_for_every_entry(kept):
  words = np.asarray(jax.random.bits(KEY, (5000,), "uint32"), np.int64)
  active = leaves.bernoulli_active(
    leaves.seed(KEY), jnp.arange(5000, dtype=jnp.uint32), kept
  )
  np.testing.assert_array_equal(active, words < round(kept * 2**32))


def test_parts_of_a_leaf_draw_what_the_whole_does():
  whole = leaves.StratifiedLeaf((12, 100), 0.1)
  part = leaves.StratifiedLeaf((4, 100), 0.1)
  expected = jax.jit(whole.columns)(leaves.seed(KEY))
  for first in (0, 4, 8):
    columns = jax.jit(part.columns)(leaves.seed(KEY, first))
    np.testing.assert_array_equal(columns, expected[first : first + 4])


@pytest.mark.parametrize(
  ("shape", "message"),
  [((2**16, 2**15), "2147483648 entries"), ((2, 10**6), "1000000")],
)
def test_leaves_beyond_32_bits_are_refused(shape, message):
  with pytest.raises(ValueError, match=message):
    leaves.StratifiedLeaf(shape, 0.1).check_positions()


@pytest.mark.parametrize("kept", [0.0, 1.5])
def test_kept_is_a_fraction(kept):
  with pytest.raises(ValueError, match=str(kept)):
    leaves.StratifiedLeaf((2, 2), kept)


@pytest.mark.parametrize(
  "key", [7, jax.random.key(0, impl="rbg"), np.zeros(4, np.uint32)]
)
def test_kernels_take_threefry_keys(key):
  with pytest.raises(ValueError, match="key must be a"):
    pack(jnp.ones((2, 20)), key, kept=0.1)


@pytest.mark.parametrize("divisor", [0, -1.0, float("nan")])
def test_scale_is_above_0(divisor):
  dense, packed = jnp.ones((2, 20)), jnp.ones((2, 2))
  memory = packed_step_api.init(dense, kept=0.1)
  for call in (
    lambda **given: pack(dense, KEY, **given),
    lambda **given: masked_mix(dense, packed, KEY, **given),
    lambda **given: packed_step_api.packed_step(
      dense, dense, memory, KEY, count=1, learning_rate=0.1, **given
    ),
  ):
    with pytest.raises(
      ValueError, match=f"divisor must be above 0, got {divisor}"
    ):
      call(kept=0.1, divisor=divisor)


def test_weights_are_float32_or_bfloat16():
  whole = jnp.ones((2, 20), jnp.int32)
  with pytest.raises(ValueError, match=r"dense must be float32 .* got int32"):
    pack(whole, KEY, kept=0.1)
  with pytest.raises(ValueError, match=r"anchor must be float32 .* got int32"):
    masked_mix(whole, jnp.ones((2, 2)), KEY, kept=0.1)
