"""Tests `experiments/metrics/equal_score.py`: curves of known answers."""

import math

import numpy as np
import pytest

from experiments import metrics
from experiments.metrics.equal_score import (
  Curve,
  at_levels,
  first_at,
  levels,
  means,
)


def curve(*points):
  scores, accuracies = zip(*points, strict=True)
  return Curve(np.array(scores), np.array(accuracies))


# Down to .1 and up again, as the rate rises; OOD rises, then collapses.
TYPICAL = curve((0.5, 0.6), (0.3, 0.7), (0.1, 0.5), (0.4, 0.2))


@pytest.mark.parametrize(
  ("level", "expected"),
  [
    (0.5, 0.6),  # its first run
    (0.4, 0.65),  # on the way down, not where it comes back up
    (0.3, 0.7),
    (0.25, 0.65),
    (0.1, 0.5),  # its best
    (0.09, math.nan),  # never
    (0.51, math.nan),  # better from the first run on: nothing is extrapolated
  ],
)
def test_where_a_curve_first_comes_down_to_a_score(level, expected):
  found = first_at(TYPICAL, level)
  assert found == pytest.approx(expected, nan_ok=True)


def test_of_equal_scores_the_first_counts():
  flat = curve((0.5, 0.6), (0.3, 0.7), (0.3, 0.1), (0.2, 0.2))
  assert first_at(flat, 0.3) == pytest.approx(0.7)
  assert first_at(flat, 0.25) == pytest.approx(0.15)
  assert first_at(curve((0.3, 0.7), (0.3, 0.1)), 0.3) == 0.7


def test_a_curve_that_crosses_twice_counts_at_its_first_crossing():
  wavering = curve((0.5, 0.5), (0.3, 0.6), (0.45, 0.4), (0.2, 0.1))
  assert first_at(wavering, 0.4) == pytest.approx(0.55)
  assert first_at(wavering, 0.25) == pytest.approx(0.1 + 0.3 * 0.2)
  rising = curve((0.2, 0.5), (0.3, 0.6), (0.5, 0.4))
  assert math.isnan(first_at(rising, 0.3))
  assert first_at(rising, 0.2) == 0.5


def test_levels_are_where_the_curves_of_all_seeds_are():
  curves = {
    0: curve((0.5, 0.6), (0.2, 0.7), (0.9, 0.1)),
    1: curve((0.4, 0.6), (0.2, 0.7), (0.9, 0.1)),
  }
  found = levels(curves, 4)
  assert found[0] == pytest.approx((0.45, 0.4, 0.35, 0.3))
  assert found[1] == pytest.approx((0.35, 0.3, 0.25, 0.2))
  for seed, own in found.items():
    for level in own:
      assert not math.isnan(first_at(curves[seed], level))
  assert means(found) == pytest.approx((0.4, 0.35, 0.3, 0.25))


def test_seeds_of_other_images_have_levels_of_their_own():
  hard, easy = curve((0.9, 0.1), (0.7, 0.2)), curve((0.3, 0.4), (0.2, 0.6))
  found = levels({0: hard, 1: easy}, 2)
  assert found[0] == pytest.approx((0.85, 0.8))
  assert found[1] == pytest.approx((0.25, 0.2))
  at = at_levels({0: hard, 1: easy}, found)
  assert at == [
    {0: pytest.approx(0.125), 1: pytest.approx(0.5)},
    {0: pytest.approx(0.15), 1: pytest.approx(0.6)},
  ]


def test_there_are_no_levels_where_a_first_run_is_the_best():
  rising, falling = curve((0.2, 0.5), (0.3, 0.6)), curve((0.3, 0.5), (0.2, 0.6))
  assert levels({0: rising}) == {}
  assert levels({0: falling, 1: rising}) == {}
  assert levels({}) == {}
  assert means({}) == ()
  assert at_levels({0: falling}, {}) == []


@pytest.mark.parametrize("start", [0.1, 0.3, 0.7])
def test_rounding_takes_no_seed_below_its_best(start):
  """Which subtracting a fall from a start would, as 0.3 - (0.3 - 0.1) does."""
  best = np.linspace(0.0, start, 50)[:-1]
  for number in best:
    own = {0: curve((start, 0.6), (float(number), 0.5))}
    last = levels(own)[0][-1]
    assert first_at(own[0], last) == pytest.approx(0.5)


def test_a_seed_that_never_gets_there_is_left_out():
  curves = {3: TYPICAL, 8: curve((0.5, 0.6), (0.2, 0.6))}
  wanted = {3: (0.15, 0.3), 8: (0.15, 0.3), 9: (0.15, 0.3)}
  found = at_levels(curves, wanted)
  assert found[0] == {3: pytest.approx(0.55)}
  assert found[1] == {3: pytest.approx(0.7), 8: pytest.approx(0.6)}


@pytest.mark.parametrize(
  ("bad", "message"),
  [
    (Curve(np.array([]), np.array([])), "at least one"),
    (Curve(np.array([0.1, 0.2]), np.array([0.1])), "as many"),
    (curve((0.5, 0.6), (math.nan, 0.5)), "finite"),
    (curve((0.5, math.inf), (0.2, 0.5)), "finite"),
  ],
)
def test_what_is_no_curve_is_refused(bad, message):
  with pytest.raises(ValueError, match=message):
    first_at(bad, 0.3)


def test_intervals_of_five_paired_seeds_cover_the_true_difference(rng):
  """In 95 % of 2,000 trials, but for four standard errors of that count.

  Seeds share luck, which pairing takes away: without it the intervals would be
  far wider, and would cover more often.
  """
  trials, difference, covered, widths = 2000, 0.03, 0, []
  for _ in range(trials):
    own, base = {}, {}
    for seed in range(5):
      luck = rng.normal(0, 0.05)
      for curves, shift in ((own, difference), (base, 0.0)):
        noise = rng.normal(0, 0.01, 3)
        accuracies = np.array([0.7, 0.65, 0.3]) + shift + luck + noise
        curves[seed] = Curve(np.array([0.4, 0.2, 0.6]), accuracies)
    wanted = dict.fromkeys(own, (0.25,))
    (first,), (second,) = at_levels(own, wanted), at_levels(base, wanted)
    found = metrics.interval([first[s] - second[s] for s in first])
    covered += found.low <= difference <= found.high
    widths.append(found.high - found.low)
  assert covered / trials == pytest.approx(0.95, abs=0.02)
  # Of two interpolated values of deviation .01 each, Student's t with four.
  deviation = 0.01 * math.sqrt(2 * (0.25**2 + 0.75**2))
  expected = 2 * 2.776 * deviation / math.sqrt(5)
  assert np.mean(widths) == pytest.approx(expected * 0.94, rel=0.05)
