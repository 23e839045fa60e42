"""Tests `gmixout_jax/averaging/soups.py`, `components.py` and `manifold.py`."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from gmixout_jax import averaging

# Scores by the value of a scalar "model", made up so that every branch of the
# greedy soup is taken. By hand, with ties going in:
#   best first: 6 (score 90), then 2 (80), 4 (80; after 2, as it stands later)
#   {6}: 90 → {6, 2} = 4: 80 < 90, out → {6, 4} = 5: 90, a tie, in
#   → {6, 4} and 8 (70): (10 + 8)/3 = 6: 90, a tie, in
SCORES = {6.0: 90.0, 2.0: 80.0, 4.0: 80.0, 5.0: 90.0, 8.0: 70.0, 7.0: 95.0}
TREES = [jnp.array(x) for x in (8.0, 2.0, 6.0, 4.0)]


def score(tree):
  return SCORES[round(float(tree), 3)]


def test_a_greedy_soup_with_ties_by_hand():
  soup = averaging.greedy_soup(TREES, score)
  assert soup.ingredients == (2, 3, 0)
  assert float(soup.params) == pytest.approx(6.0)
  assert soup.score == 90


def test_a_strict_greedy_soup_by_hand():
  # As in the authors' code: {6, 4} ties and stays out; {6, 8} = 7 scores 95.
  soup = averaging.greedy_soup(TREES, score, ties=False)
  assert soup.ingredients == (2, 0)
  assert (float(soup.params), soup.score) == (7.0, 95.0)


def test_known_scores_are_not_measured_again():
  seen = []

  def validate(tree):
    seen.append(float(tree))
    return score(tree)

  scores = [score(tree) for tree in TREES]
  averaging.greedy_soup(TREES, validate, scores=scores)
  assert seen == pytest.approx([4, 5, 6])
  with pytest.raises(ValueError, match="got 1 scores and 4 trees"):
    averaging.greedy_soup(TREES, validate, scores=[1.0])
  with pytest.raises(ValueError, match="at least one tree"):
    averaging.greedy_soup([], validate)


def test_a_run_without_a_score_is_named():
  # NaN sorts anywhere: such a run could come first, and be the soup.
  scores = [float("nan"), 80.0, 90.0, 80.0]
  with pytest.raises(ValueError, match=r"the score of trees\[0\] is NaN"):
    averaging.greedy_soup(TREES, score, scores=scores)
  with pytest.raises(ValueError, match=r"the score of trees\[0\] is NaN"):
    averaging.manifold_soup(TREES, score, powell, scores=scores)


def test_a_greedy_soup_of_small_types_is_the_mean_of_its_ingredients(rng):
  trees = [jnp.asarray(rng.uniform(1, 2, 200), jnp.bfloat16) for _ in range(20)]
  seen = []

  def validate(tree):
    seen.append(tree)
    return 1.0

  soup = averaging.greedy_soup(trees, validate, scores=[1.0] * 20)
  assert soup.ingredients == tuple(range(20))
  for count, tried in enumerate(seen, start=2):
    expected = np.mean([np.float64(tree) for tree in trees[:count]], axis=0)
    # Rounded once, by half a unit in the last place of eight bits.
    np.testing.assert_allclose(np.float64(tried), expected, atol=2**-8 + 1e-6)
  np.testing.assert_array_equal(soup.params, seen[-1])


@pytest.mark.parametrize("per_leaf", [False, True])
def test_a_learned_soup_finds_the_shares_that_least_squares_finds(per_leaf):
  trees = [
    {"a": jnp.array(0.0), "b": jnp.array(0.0)},
    {"a": jnp.array(1.0), "b": jnp.array(1.0)},
  ]
  targets = {"a": 0.2, "b": 0.6}

  def loss(params, scale, batch):
    del batch
    misses = [(params[key] - targets[key]) ** 2 for key in targets]
    return sum(misses) + (scale - 2.0) ** 2

  soup = averaging.learned_soup(
    trees, loss, range(400), per_leaf=per_leaf, learning_rate=0.05
  )
  # One share for both leaves ends half way between their targets.
  expected = targets if per_leaf else {"a": 0.4, "b": 0.4}
  for key, value in expected.items():
    assert float(soup.params[key]) == pytest.approx(value, abs=1e-3)
  assert soup.scale == pytest.approx(2.0, abs=1e-3)
  assert soup.losses[-1] < soup.losses[0]
  weights = soup.weights["b"] if per_leaf else soup.weights
  assert float(weights.sum()) == pytest.approx(1.0)


def test_a_learned_soup_of_no_batches_is_refused():
  with pytest.raises(ValueError, match="at least one batch, got none"):
    averaging.learned_soup(TREES, lambda *_: jnp.zeros([]), iter([]))


def test_components_hold_the_leaves_that_differ():
  def weights(x):
    return {
      "tower": {"fc": {"kernel": jnp.array(x)}, "scale": jnp.array(5.0)},
      "head": jnp.array(x),
    }

  trees = [weights(0.0), weights(0.0), weights(1.0)]
  assert averaging.components(trees, 1) == {
    "head": ("head",),
    "tower": ("tower/fc/kernel",),
  }
  assert averaging.components(trees, 2).keys() == {"head", "tower/fc"}
  assert averaging.components(trees[:2], 2) == {}
  with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
    averaging.components(trees, 0)
  groups = averaging.components(trees, 1)
  mixed = averaging.mix_components(
    trees[0], trees[2], groups, {"head": 0.9, "tower": 0.5}
  )
  assert float(mixed["head"]) == pytest.approx(0.1)
  assert float(mixed["tower"]["fc"]["kernel"]) == 0.5
  with pytest.raises(KeyError, match="head"):
    averaging.mix_components(*trees[1:], groups, {"tower": 0.5})
  for factor in (2.0, -0.1):
    factors = {"head": 0.5, "tower": factor}
    message = rf"factors\['tower'\] must be in \[0, 1\], got {factor}"
    with pytest.raises(ValueError, match=message):
      averaging.mix_components(*trees[1:], groups, factors)


@pytest.mark.parametrize(
  ("other", "message"),
  [
    ({"a": 1.0}, "'b', {} has none"),
    ({"a": 1.0, "c": 2.0}, "'b', {} has 'c'"),
    (
      {"a": 1.0, "b": 2.0, "c": 3.0},
      "none, {} has 'c'",
    ),
  ],
)
def test_trees_of_another_structure_have_no_components(other, message):
  first = {"a": jnp.array(0.0), "b": jnp.array(2.0)}
  other = {name: jnp.array(value) for name, value in other.items()}
  with pytest.raises(ValueError, match=message.format(r"trees\[2\]")):
    averaging.components([first, first, other], 1)
  with pytest.raises(ValueError, match=message.format("second")):
    averaging.mix_components(first, other, {"a": ("a",)}, {"a": 0.5})


def powell(loss, start, low, high, budget):
  """A search that shares nothing with Nevergrad's."""
  found = scipy.optimize.minimize(
    loss,
    np.clip(start, low, high),
    method="Powell",
    bounds=list(zip(low, high, strict=True)),
    options={"maxfev": 40 * budget, "xtol": 1e-6, "ftol": 1e-9},
  )
  return np.atleast_1d(found.x)


def point(x, y):
  return {"x": jnp.array(x), "y": jnp.array(y)}


def validate_towards(x, y):
  return lambda p: 2 - (float(p["x"]) - x) ** 2 - (float(p["y"]) - y) ** 2


def test_manifold_mixing_reaches_a_known_optimum():
  # Between (1, 1) and (0, 0) the best point is (0.8, 0.4), which no single
  # factor reaches; 0.4 lies outside the first search's bounds of 0.25 to 0.75
  # around 1/2 in no coordinate, 0.8 does, so only the second one finds it.
  trees = [point(0.0, 0.0), point(1.0, 1.0)]
  validate = validate_towards(0.8, 0.4)
  soup = averaging.manifold_soup(trees, validate, powell, depth=1, threshold=0)
  assert soup.ingredients == (1, 0)
  assert float(soup.params["x"]) == pytest.approx(0.8, abs=1e-3)
  assert float(soup.params["y"]) == pytest.approx(0.4, abs=1e-3)
  assert soup.score == pytest.approx(2.0, abs=1e-5)
  np.testing.assert_allclose(soup.shares["x"], [0.8, 0.2], atol=1e-3)


def test_manifold_shares_unroll_to_the_soup():
  trees = [point(0.0, 0.0), point(1.0, 1.0), point(0.6, -0.5)]
  validate = validate_towards(0.7, 0.2)
  soup = averaging.manifold_soup(trees, validate, powell, depth=1, threshold=0)
  assert len(soup.ingredients) >= 2
  for key in ("x", "y"):
    ends = [float(trees[i][key]) for i in soup.ingredients]
    assert sum(soup.shares[key]) == pytest.approx(1.0)
    mixed = np.dot(soup.shares[key], ends)
    assert float(soup.params[key]) == pytest.approx(mixed, abs=1e-6)


def test_manifold_mixing_skips_and_rejects():
  searches = []

  def stay(loss, start, low, high, budget):
    searches.append((tuple(start), tuple(low), tuple(high), budget))
    return start

  # The mean with (9, 9) is far off: skipped. The one with (0, 0) is within τ
  # but worse than (1, 1) itself, and this search does not move: rejected.
  trees = [point(1.0, 1.0), point(0.0, 0.0), point(9.0, 9.0)]
  soup = averaging.manifold_soup(
    trees, validate_towards(1, 1), stay, depth=1, threshold=0.7, budget=5
  )
  assert (soup.ingredients, soup.rejected, soup.skipped) == ((0,), (1,), (2,))
  assert searches == [((0.5, 0.5), (0.25, 0.25), (0.75, 0.75), 10)]
  assert soup.params is trees[0]


# What the first, second and third search find where Val(A) is 0.80, what the
# authors' code makes of it, and how often it searches; with τ = 0.998 the
# second search must reach 1.0006 times the first one's score for a third.
SEARCHES = [
  # The second brings nothing over the first, whatever both bring over A.
  ((0.81, 0.81, 0.82), 0.81, 2),
  # The second is worse, and is kept even so.
  ((0.81, 0.805), 0.805, 2),
  ((0.81, 0.79), 0.79, 2),
  ((0.81, 0.8104), 0.8104, 2),
  ((0.81, 0.8105), 0.8105, 3),
  ((0.81, 0.82, 0.83), 0.83, 3),
  ((0.81, 0.82, 0.815), 0.815, 3),
  ((0.80, 0.80), 0.80, 2),
  ((0.7999,), 0.80, 1),
  ((math.nan,), 0.80, 1),
]


@pytest.mark.parametrize(("found", "kept", "count"), SEARCHES)
def test_manifold_mixing_searches_as_often_as_the_authors(found, kept, count):
  searches, scores = [], iter(found)

  def search(loss, start, low, high, budget):
    searches.append((start[0], low[0], high[0]))
    scored.append(next(scores, found[-1]))
    return np.array([0.3 + 0.1 * len(searches)])

  # Scores in the order in which they are asked for: the plain mean's, and
  # after each search that of what it found.
  scored = [0.80]
  trees = [{"x": jnp.array(1.0)}, {"x": jnp.array(0.0)}]
  soup = averaging.manifold_soup(
    trees, lambda tree: scored.pop(), search, scores=[0.80, 0.80]
  )
  assert soup.score == kept
  starts = [(0.5, 0.25, 0.75), (0.4, 0.3, 1.0), (0.5, 0.3, 1.0)]
  assert searches == [pytest.approx(start) for start in starts[:count]]
  last = 1.0 if count == 1 else 0.3 + 0.1 * count
  assert float(soup.params["x"]) == pytest.approx(last)
  assert soup.rejected == ((1,) if count == 1 else ())


def test_manifold_mixing_needs_a_sane_threshold_and_budget():
  trees = [point(1.0, 1.0)]
  with pytest.raises(ValueError, match=r"threshold must be .* got 1.1"):
    averaging.manifold_soup(trees, float, powell, threshold=1.1)
  with pytest.raises(ValueError, match="budget must be at least 1, got 0"):
    averaging.manifold_soup(trees, float, powell, budget=0)
  with pytest.raises(ValueError, match=r"scores must be at least 0, .* -0\.5"):
    averaging.manifold_soup(trees, float, powell, scores=[-0.5])
