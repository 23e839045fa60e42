"""Tests measures of diversity against their definitions."""

import math

import numpy as np
import pytest

from experiments.diagnostics import diversity, landscape


def test_disagreement_and_ratio_error_by_hand():
  labels = np.array([0, 0, 0, 0, 0, 0])
  a = np.array([0, 1, 1, 2, 1, 0])
  b = np.array([1, 1, 2, 2, 2, 0])
  assert diversity.disagreement(a, b) == pytest.approx(3 / 6)
  # Both wrong: images 1 to 4; alike on 1 and 3, different on 2 and 4.
  assert diversity.ratio_error(a, b, labels) == 1.0
  assert diversity.ratio_error(a, np.zeros(6, int) + 2, labels) == 3.0
  assert math.isnan(diversity.ratio_error(labels, labels, labels))


def test_pairs_are_all_pairs():
  found = diversity.over_pairs(lambda a, b: a * b, [1.0, 2.0, 3.0])
  assert found == pytest.approx((2 + 3 + 6) / 3)
  with pytest.raises(ValueError, match="two members, got 1"):
    diversity.over_pairs(lambda a, b: a * b, [1.0])


def test_cka_ignores_rotations_scale_and_offset(rng):
  x = rng.standard_normal((60, 6))
  rotation, _ = np.linalg.qr(rng.standard_normal((6, 6)))
  assert diversity.unbiased_cka(x, 3 * x @ rotation + 5) == pytest.approx(1)


def test_unbiased_cka_of_unrelated_features_is_zero(rng):
  # More features than images: the plain estimate is above 0.8.
  scores = [
    diversity.unbiased_cka(
      rng.standard_normal((64, 500)), rng.standard_normal((64, 500)), batch=32
    )
    for _ in range(10)
  ]
  assert np.mean(scores) == pytest.approx(0, abs=0.05)


def test_hsic_is_unbiased_by_its_definition(rng):
  # The mean over ordered quadruples of distinct images, by brute force.
  k, m = (a @ a.T for a in rng.standard_normal((2, 6, 2)))
  total, count = 0.0, 0
  for i in range(6):
    for j in range(6):
      for q in range(6):
        for r in range(6):
          if len({i, j, q, r}) == 4:
            total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
            count += 1
  assert diversity._hsic1(k, m) == pytest.approx(total / count)


def test_features_are_checked():
  with pytest.raises(ValueError, match="the same n"):
    diversity.unbiased_cka(np.zeros((3, 2)), np.zeros((4, 2)))
  with pytest.raises(ValueError, match="at least 4 images, got 3"):
    diversity.unbiased_cka(np.zeros((3, 2)), np.zeros((3, 2)))
  with pytest.raises(ValueError, match="hardly vary"):
    diversity.unbiased_cka(np.zeros((5, 2)), np.zeros((5, 2)))


def test_angles_are_those_of_residuals():
  origin = {"a": np.array([1.0, 1.0]), "b": np.array([[0.0]])}
  first = {"a": np.array([2.0, 1.0]), "b": np.array([[0.0]])}
  second = {"a": np.array([1.0, 3.0]), "b": np.array([[0.0]])}
  third = {"a": np.array([2.0, 1.0]), "b": np.array([[1.0]])}
  assert diversity.angle(first, second, origin) == pytest.approx(90)
  assert diversity.angle(first, third, origin) == pytest.approx(45)
  with pytest.raises(ValueError, match="started from"):
    diversity.angle(origin, first, origin)


def test_a_line_goes_from_start_to_end():
  start, end = {"w": np.float32([0, 2])}, {"w": np.float32([4, 2])}
  scores = landscape.line(
    lambda w: float(w["w"][0]), start, end, [0, 0.25, 1, 1.5]
  )
  assert scores == [0, 1, 4, 6]
  assert landscape.mix([start, end], [0.5, 0.5])["w"].dtype == np.float32


def test_a_plane_keeps_points_and_distances(rng):
  points = [
    {"a": rng.standard_normal(5), "b": rng.standard_normal((2, 2))}
    for _ in range(3)
  ]
  plane = landscape.Plane.through(*points)
  flat = [np.concatenate([p["a"], p["b"].ravel()]) for p in points]
  for i, (x, y) in enumerate(plane.coordinates):
    there = plane.at(x, y)
    np.testing.assert_allclose(there["a"], points[i]["a"], atol=1e-12)
    np.testing.assert_allclose(there["b"], points[i]["b"], atol=1e-12)
    for j in range(3):
      assert np.linalg.norm(
        plane.coordinates[i] - plane.coordinates[j]
      ) == pytest.approx(np.linalg.norm(flat[i] - flat[j]))
  # A function of distance alone is round on the plane.
  x, y = plane.grid(points=7)
  scores = plane.scores(
    lambda w: float(np.sum((w["a"] - points[0]["a"]) ** 2)
                    + np.sum((w["b"] - points[0]["b"]) ** 2)), x, y,
  )  # fmt: skip
  np.testing.assert_allclose(scores, x[None] ** 2 + y[:, None] ** 2, atol=1e-9)
  assert x[0] < plane.coordinates[:, 0].min()
  assert y[-1] > plane.coordinates[:, 1].max()


def test_points_on_a_line_have_no_plane():
  a, b = {"w": np.zeros(3)}, {"w": np.ones(3)}
  with pytest.raises(ValueError, match="lie on a line"):
    landscape.Plane.through(a, b, landscape.mix([a, b], [0.5, 0.5]))
  with pytest.raises(ValueError, match="lie on a line"):
    landscape.Plane.through(a, a, b)
