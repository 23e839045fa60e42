"""Tests `gmixout_jax/averaging/interpolation.py` and `model_stock.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmixout_jax import averaging


def tree(rng):
  return {
    "a": jnp.asarray(rng.standard_normal((3, 4)), jnp.float32),
    "b": [jnp.asarray(rng.standard_normal(2), jnp.float32)],
  }


def equal(actual, expected, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
    actual,
    expected,
  )


def test_wise_ft_is_the_closed_form_and_exact_at_its_ends(rng):
  start, end = tree(rng), tree(rng)
  equal(averaging.interpolate(start, end, 0.0), start, rtol=0)
  equal(averaging.interpolate(start, end, 1.0), end, rtol=0)
  expected = jax.tree.map(
    lambda a, b: np.float64(a) + 0.3 * (np.float64(b) - np.float64(a)),
    start,
    end,
  )
  equal(averaging.interpolate(start, end, 0.3), expected, atol=1e-6)
  traced = jax.jit(averaging.interpolate)(start, end, 0.3)
  equal(traced, expected, atol=1e-6)
  for alpha in (-0.1, 1.5):
    with pytest.raises(ValueError, match=f"got {alpha}"):
      averaging.interpolate(start, end, alpha)
  with pytest.raises(ValueError, match="pytree structure"):
    averaging.interpolate(start, {"a": end["a"]}, 0.5)


def test_the_mean_is_numpys(rng):
  trees = [tree(rng) for _ in range(3)]
  stacked = [np.stack([t["a"] for t in trees]), [t["b"][0] for t in trees]]
  soup = averaging.mean(trees)
  np.testing.assert_allclose(soup["a"], np.mean(stacked[0], 0), atol=1e-6)
  np.testing.assert_allclose(soup["b"][0], np.mean(stacked[1], 0), atol=1e-6)
  soup = averaging.mean(trees, [1, 0, 3])
  expected = np.average(stacked[0], axis=0, weights=[1, 0, 3])
  np.testing.assert_allclose(soup["a"], expected, atol=1e-6)
  for weights in ([1, 2], [0, 0, 0], [np.inf, 1, 1], [np.nan, 1, 1]):
    with pytest.raises(ValueError, match="weights must be 3 finite numbers"):
      averaging.mean(trees, weights)
  with pytest.raises(ValueError, match="at least one tree"):
    averaging.mean([])


def test_a_mean_of_small_types_is_summed_in_float32():
  # In bfloat16 the running sum would stick at 256.
  trees = [jnp.ones((), jnp.bfloat16)] * 512
  soup = averaging.mean(trees)
  assert soup.dtype == jnp.bfloat16
  assert float(soup) == 1.0


def test_leaves_may_have_weights_of_their_own():
  trees = [{"a": jnp.array(1.0), "b": jnp.array(10.0)}] * 2
  weights = {"a": jnp.array([0.25, 0.5]), "b": jnp.array([2.0, 0.0])}
  mixed = averaging.mix_leaves(trees, weights)
  assert (float(mixed["a"]), float(mixed["b"])) == (0.75, 20.0)


@pytest.mark.parametrize(
  "make", [list, tuple, np.asarray, jnp.asarray, lambda x: list(np.array(x))]
)
def test_weights_may_be_any_vector(rng, make):
  trees = [tree(rng) for _ in range(3)]
  shares = [0.5, -1.0, 2.0]
  expected = jax.tree.map(
    lambda *leaves: np.tensordot(shares, np.stack(leaves), 1), *trees
  )
  mixed = averaging.mix_leaves(trees, make(shares))
  equal(mixed, expected, atol=1e-6)
  own = {"a": make(shares), "b": [make(shares)]}
  equal(averaging.mix_leaves(trees, own), expected, atol=1e-6)
  traced = jax.jit(averaging.mix_leaves)(trees, own)
  equal(traced, expected, atol=1e-6)


def test_trees_that_are_lists_may_have_weights_per_leaf():
  trees = [[jnp.array(1.0), jnp.array(10.0)], [jnp.array(3.0), jnp.array(30.0)]]
  mixed = averaging.mix_leaves(trees, [[1.0, 0.0], np.array([0.5, 0.5])])
  assert [float(leaf) for leaf in mixed] == [1.0, 20.0]


@pytest.mark.parametrize(
  ("weights", "message"),
  [
    ([0.5, 0.5], r"weights must be 3 numbers, one per tree, got \[0.5, 0.5\]"),
    (np.ones(2), r"weights must be 3 numbers, .* got \[1. 1.\]"),
    (jnp.ones((3, 1)), r"weights must be 3 numbers"),
    (1.0, r"weights must be 3 numbers, .* got 1.0"),
    ({"a": [1, 1, 1], "b": [np.ones(4)]}, r"leaf 'b/0' must be 3 numbers"),
    ({"a": ["x"] * 3, "b": [np.ones(3)]}, r"leaf 'a' must .* got \['x', 'x'"),
    ({"a": [1, 1, 1]}, r"key"),
  ],
)
def test_weights_of_another_length_are_refused(rng, weights, message):
  trees = [tree(rng) for _ in range(3)]
  with pytest.raises(ValueError, match=message):
    averaging.mix_leaves(trees, weights)
  with pytest.raises(ValueError, match="at least one tree, got none"):
    averaging.mix_leaves([], weights)


def test_a_point_between_small_types_is_formed_in_float32(rng):
  start, end = (
    jnp.asarray(rng.standard_normal(1000), jnp.bfloat16) for _ in range(2)
  )
  for alpha in (0.1, jnp.bfloat16(0.1), np.float32(0.7)):
    wide = np.float64(alpha)
    expected = (1 - wide) * np.float64(start) + wide * np.float64(end)
    found = averaging.interpolate(start, end, alpha)
    assert found.dtype == jnp.bfloat16
    # Rounded once: half a unit in the last place of eight bits.
    np.testing.assert_allclose(
      np.float64(found), expected, rtol=2**-8 + 1e-5, atol=1e-6
    )
  equal(averaging.interpolate(start, end, 0.0), start, rtol=0)
  equal(averaging.interpolate(start, end, 1.0), end, rtol=0)


def unit(degrees):
  radians = np.deg2rad(degrees)
  return jnp.array([np.cos(radians), np.sin(radians)], jnp.float32)


@pytest.mark.parametrize("degrees", [0.0, 60.0, 90.0])
def test_model_stock_of_two_is_the_foot_of_a_perpendicular(degrees):
  # Two runs of one length: the centre is as far from both and from θ0 as the
  # shell is thick, so the merged point is where the line from the centre meets
  # the plane. Jang et al.: t = 2 cos θ / (1 + cos θ).
  base = jnp.array([3.0, -1.0])
  tuned = [base + 2 * unit(0), base + 2 * unit(degrees)]
  stock = averaging.model_stock({"w": base}, [{"w": w} for w in tuned])
  cosine = np.cos(np.deg2rad(degrees))
  ratio = 2 * cosine / (1 + cosine)
  np.testing.assert_allclose(stock.ratios["w"], ratio, atol=1e-6)
  middle = (np.asarray(tuned[0]) + np.asarray(tuned[1])) / 2
  expected = ratio * middle + (1 - ratio) * np.asarray(base)
  np.testing.assert_allclose(stock.params["w"], expected, atol=1e-5)


def test_model_stock_minimises_the_distance_to_the_centre():
  # The geometry behind the formula, without it: with a centre c = θ0 + x, runs
  # c + nᵢ with noise nᵢ orthogonal to x and to each other and of one length.
  # Of all points of span(θᵢ, θ0), the one nearest to c, by least squares:
  dimensions, count = 16, 3
  basis = np.eye(dimensions)
  centre = 2.0 * basis[0]
  tuned = [centre + 1.5 * basis[1 + i] for i in range(count)]
  design = np.stack(tuned, axis=1)
  shares, *_ = np.linalg.lstsq(design, centre, rcond=None)
  stock = averaging.model_stock(
    jnp.zeros(dimensions), [jnp.asarray(w, jnp.float32) for w in tuned]
  )
  np.testing.assert_allclose(stock.params, design @ shares, atol=1e-6)


def test_model_stock_of_leaves_that_rest_or_disagree():
  base = {"still": jnp.ones(2), "torn": jnp.zeros(2), "same": jnp.zeros(2)}
  up = {"still": jnp.ones(2), "torn": jnp.ones(2), "same": jnp.ones(2)}
  stock = averaging.model_stock(base, [up, up | {"torn": -jnp.ones(2)}])
  equal(stock.params, base | {"same": np.ones(2)}, atol=1e-6)
  assert [float(stock.ratios[k]) for k in ("still", "torn")] == [0, 0]
  with pytest.raises(ValueError, match="two runs, got 1"):
    averaging.model_stock(base, [up])


def test_model_stock_of_small_types_is_rounded_once(rng):
  start = rng.normal(size=200)
  common = rng.normal(size=200)
  tuned = [start + common + 0.5 * rng.normal(size=200) for _ in range(3)]
  start, *tuned = (w.astype(jnp.bfloat16) for w in (start, *tuned))
  stock = averaging.model_stock(
    {"w": jnp.asarray(start)}, [{"w": jnp.asarray(w)} for w in tuned]
  )
  exact = [np.asarray(w, np.float64) for w in (start, *tuned)]
  moves = [end - exact[0] for end in exact[1:]]
  units = [move / np.linalg.norm(move) for move in moves]
  cosine = np.mean([units[i] @ units[j] for i, j in ((0, 1), (0, 2), (1, 2))])
  ratio = 3 * cosine / (1 + 2 * cosine)
  assert 0.5 < ratio < 0.99
  np.testing.assert_allclose(stock.ratios["w"], ratio, rtol=1e-5)
  wanted = ratio * np.mean(exact[1:], axis=0) + (1 - ratio) * exact[0]
  found = np.asarray(stock.params["w"])
  np.testing.assert_array_equal(found, wanted.astype(jnp.bfloat16))


MASKED = jnp.array([-jnp.inf, 0.0, jnp.inf])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, jnp.array(0.0)])
def test_infinities_that_all_share_stay(alpha):
  """As a buffer holds them that masks attention; 0 · ∞ would be NaN."""
  trees = [{"mask": MASKED, "w": jnp.array(float(i))} for i in range(3)]
  found = averaging.interpolate(trees[0], trees[1], alpha)
  np.testing.assert_array_equal(found["mask"], MASKED)
  for merged in (
    averaging.mean(trees, weights=[0, 1, 2]),
    averaging.model_stock(trees[0], trees[1:]).params,
  ):
    np.testing.assert_array_equal(merged["mask"], MASKED)
    assert np.isfinite(merged["w"])


@pytest.mark.parametrize(
  "alpha", [jnp.linspace(0, 1, 3), np.linspace(0, 1, 3), None, jnp.array(1.5)]
)
def test_a_share_is_one_number(alpha):
  start, end = {"w": jnp.zeros((2, 3))}, {"w": jnp.ones((2, 3))}
  with pytest.raises(ValueError, match="alpha must be "):
    averaging.interpolate(start, end, alpha)
  found = jax.jit(averaging.interpolate)(start, end, 0.25)
  np.testing.assert_allclose(found["w"], 0.25)


def test_pythons_numbers_are_leaves_too():
  trees = [{"t": 1.0}, {"t": 2.0}, {"t": 3.0}]
  assert float(averaging.interpolate(*trees[:2], 0.5)["t"]) == 1.5
  assert 1 <= float(averaging.model_stock(trees[0], trees[1:]).params["t"]) <= 3


def test_the_ends_are_exact_where_the_other_is_infinite():
  start, end = {"w": MASKED}, {"w": jnp.ones(3)}
  at = lambda alpha: averaging.interpolate(start, end, alpha)["w"]
  np.testing.assert_array_equal(at(0.0), MASKED)
  np.testing.assert_array_equal(at(1.0), np.ones(3))
