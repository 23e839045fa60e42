"""Tests the decomposition on identities and on an analytic linear ensemble."""

import math

import numpy as np
import pytest

from experiments import metrics
from experiments.diagnostics import bvcl


def predictions(rng, runs=5, members=4, n=30, classes=3):
  return metrics.softmax(2 * rng.standard_normal((runs, members, n, classes)))


def test_the_terms_add_up_exactly_for_any_data(rng):
  for runs, members in ((2, 2), (5, 4), (3, 7)):
    p = predictions(rng, runs, members)
    labels = rng.integers(0, 3, 30)
    t = bvcl.decompose(p, labels)
    m = members
    total = t.bias2 + t.variance / m + (m - 1) / m * t.covariance
    assert total == pytest.approx(t.ensemble, abs=1e-12)
    by_run = [metrics.brier(run.mean(axis=0), labels) for run in p]
    assert t.ensemble == pytest.approx(np.mean(by_run))
    singles = [metrics.brier(x, labels) for run in p for x in run]
    assert t.member == pytest.approx(np.mean(singles))
    assert t.bias2 + t.variance == pytest.approx(t.member)


def test_the_covariance_is_its_definition(rng):
  p, labels = predictions(rng, runs=4, members=3), rng.integers(0, 3, 30)
  d = p - p.mean(axis=(0, 1))
  pairs = [
    np.sum(d[r, a] * d[r, b], axis=-1).mean()
    for r in range(4)
    for a in range(3)
    for b in range(3)
    if a != b
  ]
  means = p.mean(axis=1)
  v = np.sum((means - means.mean(0)) ** 2, -1).mean() * 4 / 3
  assert bvcl.decompose(p, labels).covariance == pytest.approx(
    np.mean(pairs) + v / 4
  )


def test_an_analytic_ensemble_of_linear_models(rng):
  # f = x·w with w = w* + b + u_run + e_member: bias² = E(x·b)², the variance
  # is (σ_u² + σ_e²) E‖x‖² and the covariance σ_u² E‖x‖². As two "classes" the
  # predictions are (f, −f) about (y, −y), which doubles every term.
  n, width, sigma_u, sigma_e = 50, 4, 0.3, 0.5
  x = rng.standard_normal((n, width))
  b = np.array([0.4, 0.0, -0.2, 0.1])
  runs, members = 4000, 3
  u = sigma_u * rng.standard_normal((runs, 1, width))
  e = sigma_e * rng.standard_normal((runs, members, width))
  f = (b + u + e) @ x.T  # of an image whose target is 0
  p = np.stack([1 + f, -f], axis=-1)  # about (1, 0): label 0
  t = bvcl.decompose(p, np.zeros(n, int))
  square = np.mean(np.sum(x**2, axis=1))
  assert t.bias2 == pytest.approx(2 * np.mean((x @ b) ** 2), rel=0.03)
  assert t.variance == pytest.approx(
    2 * (sigma_u**2 + sigma_e**2) * square, rel=0.03
  )
  assert t.covariance == pytest.approx(2 * sigma_u**2 * square, rel=0.05)
  # Linear models: the average of weights predicts the average of predictions.
  average = 1 + (b + (u + e).mean(axis=1)) @ x.T
  np.testing.assert_allclose(average, p[..., 0].mean(axis=1), atol=1e-12)


def test_the_estimates_are_unbiased_with_two_runs(rng):
  # Many pairs of runs: the mean of their estimates is the truth.
  truth = {"bias2": 2 * 0.1**2, "variance": 2 * 0.05, "covariance": 2 * 0.03}
  found = []
  for _ in range(4000):
    u = math.sqrt(0.03) * rng.standard_normal((2, 1, 1))
    f = 0.1 + u + math.sqrt(0.02) * rng.standard_normal((2, 4, 1))
    t = bvcl.decompose(np.stack([1 + f, -f], -1), np.zeros(1, int))
    found.append([t.bias2, t.variance, t.covariance])
  np.testing.assert_allclose(
    np.mean(found, axis=0), list(truth.values()), atol=0.006
  )


def test_independent_members_have_no_covariance_and_equal_ones_only_that(rng):
  labels = rng.integers(0, 3, 30)
  apart = bvcl.decompose(predictions(rng, runs=800, members=2), labels)
  assert apart.covariance == pytest.approx(0, abs=0.01 * apart.variance)
  equal = np.repeat(predictions(rng, runs=5, members=1), 3, axis=1)
  same = bvcl.decompose(equal, labels)
  assert same.covariance == pytest.approx(same.variance)
  assert same.drift < apart.variance


def test_drift_is_the_difference_between_members_means():
  p = np.zeros((2, 2, 1, 2))
  p[:, 0], p[:, 1] = (1.0, 0.0), (0.0, 1.0)  # the same in both runs
  t = bvcl.decompose(p, np.zeros(1, int))
  assert t.drift == pytest.approx(0.5)
  assert t.variance == pytest.approx(0.5)
  assert t.covariance == pytest.approx(-0.5)


def test_what_runs_contribute_averages_to_the_terms(rng):
  p, labels = predictions(rng, runs=4, members=3), rng.integers(0, 3, 30)
  whole, each = bvcl.decompose(p, labels), bvcl.by_run(p, labels)
  for term, values in each.items():
    assert len(values) == 4
    assert np.mean(values) == pytest.approx(getattr(whole, term))
  np.testing.assert_allclose(
    each["ensemble"], [metrics.brier(run.mean(axis=0), labels) for run in p]
  )
  with pytest.raises(ValueError, match="at least three runs, got 2"):
    bvcl.by_run(p[:2], labels)


def test_intervals_over_runs_cover_the_true_terms(rng):
  # As above: f = 0.1 + u + e about 0, of which the terms are known. Four runs
  # of 200 images whose luck is their own: terms are nearly normal.
  covered = np.zeros(3)
  for _ in range(300):
    u = math.sqrt(0.03) * rng.standard_normal((4, 1, 200))
    f = 0.1 + u + math.sqrt(0.02) * rng.standard_normal((4, 3, 200))
    found = bvcl.by_run(np.stack([1 + f, -f], -1), np.zeros(200, int))
    truth = {"bias2": 2 * 0.1**2, "variance": 2 * 0.05, "covariance": 2 * 0.03}
    for i, (term, true) in enumerate(truth.items()):
      interval = metrics.interval(found[term])
      covered[i] += interval.low <= true <= interval.high
  # Binomial: 1.3 %; the jackknife itself is not exact.
  np.testing.assert_allclose(covered / 300, 0.95, atol=0.05)


def test_one_run_cannot_tell_covariance_from_bias(rng):
  with pytest.raises(ValueError, match="cannot be told from bias"):
    bvcl.decompose(predictions(rng, runs=1), np.zeros(30, int))
  with pytest.raises(ValueError, match="shapes"):
    bvcl.decompose(predictions(rng), np.zeros(29, int))
  assert math.isnan(
    bvcl.decompose(predictions(rng, members=1), np.zeros(30, int)).covariance
  )


def test_locality_by_hand():
  initial = {"a": np.array([3.0, 4.0], np.float32)}
  runs = [
    [{"a": np.array([0.0, 0.0])}, {"a": np.array([2.0, 0.0])}],
    [{"a": np.array([1.0, 1.0])}, {"a": np.array([1.0, 5.0])}],
  ]
  found = bvcl.locality(runs, initial)
  assert found.squared == pytest.approx((1 + 4) / 2)
  assert found.relative == pytest.approx(2.5 / 25)
  deployed = [run[0] for run in runs]
  assert bvcl.locality(runs, initial, deployed).squared == (4 + 16) / 2
  with pytest.raises(ValueError, match="at least one run"):
    bvcl.locality([[]], initial)


def test_mean_weights_keep_their_type():
  mean = bvcl.mean_weights(
    [{"a": np.float32([1, 2])}, {"a": np.float32([3, 2])}]
  )
  assert mean["a"].dtype == np.float32
  np.testing.assert_array_equal(mean["a"], [2, 2])
