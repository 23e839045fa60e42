"""Tests intervals by simulation and paired tests against their definitions."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from experiments import metrics


@pytest.mark.parametrize("n", [2, 3, 8])
def test_an_interval_covers_the_true_mean_as_often_as_it_says(n, rng):
  draws = 0.7 + 0.02 * rng.standard_normal((3000, n))
  covered = 0
  for values in draws:
    found = metrics.interval(values)
    covered += found.low <= 0.7 <= found.high
  # Binomial: a standard deviation of 0.4 %, four of them.
  assert covered / 3000 == pytest.approx(0.95, abs=0.016)


def test_confidence_is_what_is_asked_for(rng):
  draws = rng.standard_normal((2000, 4))
  covered = 0
  for values in draws:
    found = metrics.interval(values, confidence=0.5)
    covered += found.low <= 0 <= found.high
  assert covered / 2000 == pytest.approx(0.5, abs=0.045)


def test_an_interval_is_scipys(rng):
  values = rng.standard_normal(5)
  found = metrics.interval(values)
  low, high = stats.t.interval(
    0.95, 4, loc=values.mean(), scale=stats.sem(values)
  )
  assert found[:3] == pytest.approx((values.mean(), low, high))
  assert found.std == pytest.approx(np.std(values, ddof=1))
  assert found.n == 5


def test_a_single_run_has_no_interval():
  found = metrics.interval([0.5])
  assert found.mean == 0.5
  assert math.isnan(found.low)
  assert math.isnan(found.high)
  assert math.isnan(found.std)
  assert found.percent() == "50.0"


def test_a_table_has_half_the_interval_in_percent():
  # Student's t of 0.975 with one degree of freedom is 12.706.
  assert metrics.interval([0.6, 0.62]).percent() == "61.0 ± 12.7"
  assert metrics.interval([0.6, 0.62]).points() == "+61.0 ± 12.7"
  assert metrics.interval([-0.1]).points() == "-10.0"


def test_pairs_are_matched_by_seed():
  a, b = {0: 0.5, 1: 0.6, 2: 0.8, 9: 0.1}, {2: 0.7, 1: 0.52, 0: 0.45, 5: 0.9}
  found = metrics.paired(a, b)
  assert found.seeds == (0, 1, 2)
  differences = [0.05, 0.08, 0.1]
  assert found.difference.mean == pytest.approx(np.mean(differences))
  expected = stats.ttest_rel([0.5, 0.6, 0.8], [0.45, 0.52, 0.7])
  assert found.p_t == pytest.approx(expected.pvalue)
  low, high = expected.confidence_interval()
  assert (found.difference.low, found.difference.high) == pytest.approx(
    (low, high)
  )
  assert found.p_sign == pytest.approx(0.25)  # 2 of 2³ signs


def test_the_sign_flip_test_is_its_definition(rng):
  differences = 0.01 + 0.02 * rng.standard_normal(7)
  first = dict(enumerate(0.5 + differences))
  second = dict.fromkeys(range(7), 0.5)
  observed = abs(differences.mean())
  means = [
    abs(np.mean(np.array(signs) * differences))
    for signs in itertools.product((1, -1), repeat=7)
  ]
  expected = np.mean(np.array(means) >= observed - 1e-12)
  assert metrics.paired(first, second).p_sign == pytest.approx(expected)


def test_pairing_removes_what_seeds_share(rng):
  luck = 0.1 * rng.standard_normal(6)
  a = dict(enumerate(0.70 + luck + 0.002 * rng.standard_normal(6)))
  b = dict(enumerate(0.68 + luck + 0.002 * rng.standard_normal(6)))
  assert metrics.paired(a, b).p_t < 0.001
  unpaired = stats.ttest_ind(list(a.values()), list(b.values()))
  assert unpaired.pvalue > 0.3


def test_the_false_positive_rate_is_nominal(rng):
  draws = rng.standard_normal((400, 2, 6))
  alarms = [
    metrics.paired(dict(enumerate(a)), dict(enumerate(b))).p_t < 0.05
    for a, b in draws
  ]
  assert np.mean(alarms) == pytest.approx(0.05, abs=0.04)


def test_differences_without_spread():
  same = metrics.paired({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6})
  assert (same.p_t, same.p_sign) == (1.0, 1.0)
  constant = metrics.paired({0: 0.75, 1: 0.5}, {0: 0.5, 1: 0.25})
  assert math.isnan(constant.p_t)
  single = metrics.paired({0: 0.75}, {0: 0.5})
  assert math.isnan(single.p_sign)
  assert single.difference.mean == 0.25


def test_what_cannot_be_compared_is_refused():
  with pytest.raises(ValueError, match=r"no seed is in both: \[0\] and \[1\]"):
    metrics.paired({0: 0.5}, {1: 0.5})
  for values in ([], [math.nan], [[0.1]]):
    with pytest.raises(ValueError, match="finite and at least one"):
      metrics.interval(values)
  with pytest.raises(ValueError, match=r"got 95"):
    metrics.interval([0.1, 0.2], confidence=95)
