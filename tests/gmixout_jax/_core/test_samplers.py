"""Tests `gmixout_jax/_core/samplers.py`: the laws of the four samplers."""

import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats

import gmixout_jax as gx
from gmixout_jax._core import layouts, samplers
from tests.combinations import EXHAUSTIVE, every_value, tried

SAMPLERS = tuple(samplers.SAMPLERS)
DRAWS = 4000
AXES = {2: "io", 3: "lio"}


def draw_masks(sampler, shape, kept, draws=DRAWS, path="w", seed=0):
  """Masks of the first episodes, [draws, *shape], and their layout."""
  layout = samplers.leaf_layout(
    sampler, path, shape, kept, AXES.get(len(shape))
  )
  like = jnp.zeros(shape)

  @jax.jit
  @jax.vmap
  def mask(episode):
    key = samplers.leaf_keys(jax.random.key(seed), episode, [path])[0]
    return layout.mask(layout.draw(key, like), like)

  return np.asarray(mask(jnp.arange(draws))), layout


@pytest.mark.parametrize(
  ("shape", "kept"),
  every_value([(6, 23), (2, 3, 23), (1, 30)], [0.13, 0.37, 1.0]),
)
def test_stratified_keeps_the_same_count_in_every_row(shape, kept):
  drawn, layout = draw_masks("stratified", shape, kept, draws=50)
  count = max(1, round(shape[-1] * kept))
  assert np.all(drawn.sum(axis=-1) == count)
  assert layout.kept_fraction == pytest.approx(count / shape[-1])


@pytest.mark.parametrize(
  ("shape", "kept"),
  every_value([(7, 13), (1, 263), (24, 50), (521, 1)], [0.1, 0.37, 1.0]),
)
def test_uniform_keeps_an_exact_count(shape, kept):
  drawn, layout = draw_masks("uniform", shape, kept, draws=50)
  size = math.prod(shape)
  count = int(size * kept)
  assert np.all(drawn.sum(axis=(1, 2)) == count)
  assert layout.kept_fraction == pytest.approx(count / size)


@pytest.mark.parametrize(
  ("sparsity", "shape", "count"),
  [(2 / 3, (3, 100), 100), (2 / 3, (1, 3), 1), (0.9, (10, 99), 99)],
)
def test_a_fraction_that_is_no_short_decimal(sparsity, shape, count):
  """1 - 2/3 is a little less than a third."""
  params = jnp.ones(shape)
  state = gx.gmixout(sparsity=sparsity, sampler="uniform", key=0).init(params)
  assert state.anchor.shape == (count,)


def test_neuron_keeps_whole_rows_in_exact_number():
  drawn, layout = draw_masks("neuron", (20, 6), 0.3, draws=50)
  rows = drawn.any(axis=2)
  assert np.all(rows == drawn.all(axis=2))
  assert np.all(rows.sum(axis=1) == 6)
  assert layout.kept_fraction == pytest.approx(0.3)


@pytest.mark.parametrize("shape", [(6, 7), (20, 30)])  # ranked, and shuffled
def test_bernoulli_counts_vary_as_a_binomial(shape):
  drawn, layout = draw_masks("bernoulli", shape, 0.2)
  assert layout.kept_fraction == 0.2
  law = stats.binom(math.prod(shape), 0.2)
  counts = drawn.sum(axis=(1, 2))
  limits = np.unique(law.ppf(np.linspace(0.05, 0.95, 10)))
  expected = np.diff([0, *law.cdf(limits), 1]) * DRAWS
  found = np.bincount(np.searchsorted(limits, counts), minlength=len(expected))
  assert stats.chisquare(found, expected).pvalue > 0.001


def test_bernoulli_has_room_for_all_but_a_stated_chance():
  for chance in (1e-3, 0.01, 0.1, 0.5, 0.9):
    for mean in (1, 1.5, 2, 3, 5, 10, 100, 1000, 1e5):
      size = math.ceil(mean / chance)
      layout = samplers.Bernoulli((1, size), chance)
      overflow = stats.binom.sf(layout.packed_shape[0], size, chance)
      assert overflow < (1.2e-7 if mean < 1000 else 1e-14)


def test_bernoulli_never_has_more_than_there_is_room_for(monkeypatch):
  monkeypatch.setattr(samplers, "_BERNOULLI_MARGIN", 0.0)
  drawn, layout = draw_masks("bernoulli", (20, 30), 0.2, draws=50)
  assert layout.packed_shape == (120,)
  counts = drawn.sum(axis=(1, 2))
  assert counts.max() == 120
  assert counts.min() < 115


@pytest.mark.parametrize(
  ("sampler", "shape", "kept"),
  [
    ("stratified", (3, 23), 0.2),  # strata of 4 and 5 columns
    pytest.param("uniform", (4, 9), 0.25, marks=EXHAUSTIVE),
    pytest.param("uniform", (13, 31), 0.1, marks=EXHAUSTIVE),
    ("uniform", (1, 263), 0.1),
    ("bernoulli", (4, 9), 0.25),
    pytest.param("bernoulli", (13, 31), 0.1, marks=EXHAUSTIVE),
    ("neuron", (23, 2), 0.2),
  ],
)
def test_every_entry_is_included_as_often_as_the_law_says(sampler, shape, kept):
  drawn, _ = draw_masks(sampler, shape, kept)
  expected = np.full(shape, kept)
  if sampler == "uniform":
    expected = np.full(shape, int(kept * expected.size) / expected.size)
  if sampler in ("stratified", "neuron"):
    length = shape[-1] if sampler == "stratified" else shape[0]
    count = max(1, round(length * kept))
    bounds = [j * length // count for j in range(count + 1)]
    widths = np.diff(bounds)
    chance = np.repeat(1 / widths, widths)
    expected = np.broadcast_to(
      chance if sampler == "stratified" else chance[:, None], shape
    )
  deviation = np.sqrt(expected * (1 - expected) / DRAWS)
  assert np.all(np.abs(drawn.mean(axis=0) - expected) < 5 * deviation)


@pytest.mark.parametrize(
  ("shape", "sampler"),
  every_value([(13, 31), (3, 4)], ["uniform", "bernoulli"]),
)
def test_pairs_of_entries_are_drawn_together_as_often_as_the_law_says(
  sampler, shape
):
  """All pairs, and those of neighbours in a row and in a column."""
  drawn, layout = draw_masks(sampler, shape, 0.5)
  size = math.prod(shape)
  flat = drawn.reshape(DRAWS, size).astype(np.float32)
  together = (flat.T @ flat / DRAWS)[np.triu_indices(size, 1)]
  count = round(size * layout.kept_fraction)
  chance = count * (count - 1) / (size * (size - 1))
  chance = chance if sampler == "uniform" else 0.25
  deviation = np.sqrt(chance * (1 - chance) / DRAWS)
  bound = stats.norm.isf(1e-3 / together.size)
  assert np.all(np.abs(together - chance) < bound * deviation)
  for pairs in (
    drawn[:, :, 1:] & drawn[:, :, :-1],
    drawn[:, 1:] & drawn[:, :-1],
  ):
    # Two pairs that share an entry depend on each other a little.
    deviation = np.sqrt(2 * chance * (1 - chance) / pairs.size)
    assert abs(pairs.mean() - chance) < 4 * deviation


@pytest.mark.slow
@pytest.mark.parametrize(
  "sampler",  # keys differ, for all samplers alike
  tried(SAMPLERS, lambda name: name in ("stratified", "neuron")),
)
def test_masks_are_independent_across_leaves_and_episodes(sampler):
  shape, kept = (20, 20), 0.25
  first, _ = draw_masks(sampler, shape, kept, draws=500, path="a")
  other, _ = draw_masks(sampler, shape, kept, draws=500, path="b")
  assert not np.array_equal(first[0], other[0])
  chance = first.mean(axis=0)
  expected = (chance * chance).mean()
  for one, two in [(first, other), (first[:-1], first[1:])]:
    overlap = (one & two).mean()
    # Whole rows move together, so their overlap varies the most.
    samples = len(one) * (20 if sampler == "neuron" else 400)
    deviation = np.sqrt(expected * (1 - expected) / samples)
    assert abs(overlap - expected) < 5 * deviation


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_bits_under_jit_vmap_and_on_eight_devices(sampler):
  shape = (16, 24)
  layout = samplers.leaf_layout(sampler, "w", shape, 0.25, AXES[len(shape)])
  key = samplers.leaf_keys(jax.random.key(3), jnp.int32(5), ["w"])[0]
  draw = lambda like: layout.draw(key, like)
  like = jnp.zeros(shape)
  eager = draw(like)
  np.testing.assert_array_equal(jax.jit(draw)(like), eager)
  keys = jnp.stack([key, jax.random.key(9)])
  batched = jax.vmap(lambda one: layout.draw(one, like))(keys)
  np.testing.assert_array_equal(batched[0], eager)
  for axis_type in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
      sharded = jax.device_put(
        like, NamedSharding(mesh, PartitionSpec("x", None))
      )
      np.testing.assert_array_equal(jax.jit(draw)(sharded), eager)


@pytest.mark.parametrize(
  ("shape", "sampler"), every_value([(12, 25), (3, 4, 25)], SAMPLERS)
)
def test_take_and_put_are_inverse_on_the_mask(sampler, shape, rng):
  layout = samplers.leaf_layout(sampler, "w", shape, 0.3, AXES[len(shape)])
  dense = jnp.asarray(rng.normal(size=shape), jnp.float32)
  indices = layout.draw(jax.random.key(0), dense)
  packed = layout.take(dense, indices)
  mask = layout.mask(indices, dense)
  assert packed.shape == layout.packed_shape
  np.testing.assert_array_equal(
    layout.put(packed, indices, dense), jnp.where(mask, dense, 0)
  )
  active = np.asarray(dense)[np.asarray(mask)]
  packed = np.ravel(packed)
  if isinstance(layout, layouts.Anywhere):  # packed as they were drawn
    used = np.asarray(indices) < layout.size
    assert np.all(used) or sampler == "bernoulli"
    flat = np.ravel(dense)[np.asarray(indices)[used]]
    np.testing.assert_array_equal(packed[: used.sum()], flat)
    packed, active = np.sort(packed[: used.sum()]), np.sort(active)
  np.testing.assert_array_equal(packed[: active.size], active)


def test_unused_slots_read_zero_and_write_nowhere(rng):
  layout = samplers.leaf_layout("bernoulli", "w", (12, 25), 0.3)
  dense = jnp.asarray(rng.normal(size=(12, 25)), jnp.float32)
  indices = layout.draw(jax.random.key(0), dense)
  unused = np.asarray(indices) == 300
  assert 0 < unused.sum() < indices.size
  assert not np.any(np.diff(unused.astype(int)) < 0)  # they come last
  packed = layout.take(dense, indices)
  np.testing.assert_array_equal(np.asarray(packed)[unused], 0)
  ones = layout.put(jnp.ones(packed.shape), indices, dense)
  assert ones.sum() == (~unused).sum()


def test_every_sampler_says_which_masks_it_draws():
  assert tuple(samplers.MASK_DISTRIBUTION) == SAMPLERS
  changed = {name for name, n in samplers.MASK_DISTRIBUTION.items() if n > 1}
  assert changed == {"uniform", "bernoulli"}


@pytest.mark.parametrize(
  ("mask", "x64"),
  every_value(
    [
      ("stratified", (24, 50), "a53a0331b0711ed1"),
      ("uniform", (24, 50), "be96ccaf5d3b7be9"),
      ("uniform", (1, 263), "2a426a246ca7fd82"),  # a prime number of entries
      ("uniform", (5, 12), "ee489079b12ce76a"),  # few enough to be ranked
      ("bernoulli", (24, 50), "bb5adfb5e77f8b1f"),
      ("bernoulli", (5, 12), "cb22d6a548de435a"),
      ("neuron", (24, 50), "552693a26cf4eca6"),
    ],
    [False, True],
  ),
)
def test_masks_never_change(mask, x64):
  """JAX does not promise its streams over versions, so they are pinned here.

  If this fails after an upgrade of jax, a run resumed across it would switch
  masks in mid-episode: raise the sampler's number in `MASK_DISTRIBUTION`, and
  note it in the changelog, before renewing the digests.
  """
  sampler, shape, digest = mask
  with jax.enable_x64(x64):
    path = "blocks/0/fc1/kernel"
    axes = AXES[len(shape)]
    layout = samplers.leaf_layout(sampler, path, shape, 0.1, axes)
    key = samplers.leaf_keys(jax.random.key(0), 7, ["blocks/0/fc1/kernel"])[0]
    indices = layout.draw(key, jnp.zeros(shape))
  assert indices.dtype == jnp.int32
  digest_now = hashlib.sha256(np.asarray(indices, "<i4").tobytes())
  assert digest_now.hexdigest()[:16] == digest


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_refuses_a_leaf_too_small_to_keep_one_entry(sampler):
  with pytest.raises(ValueError, match=r"'w' of shape \(2, 4\) is too small"):
    samplers.leaf_layout(sampler, "w", (2, 4), 0.1, "io")


def test_refuses_positions_beyond_32_bits():
  with pytest.raises(ValueError, match="at most 2147483647"):
    samplers.leaf_layout("uniform", "w", (2**16, 2**16), 0.1)
  samplers.leaf_layout("stratified", "w", (2**16, 2**16), 0.1)
