"""Tests `experiments/data/shifts.py`."""

import numpy as np
import pytest

from experiments.data import scanned_digits, shifts


@pytest.fixture(scope="module")
def scans():
  return scanned_digits.load()["test"].take(np.arange(40))


@pytest.mark.parametrize("name", shifts.SHIFTS)
def test_a_shift_changes_every_image_and_keeps_its_form(name, scans):
  before = scans.images.copy()
  shifted = shifts.apply(name, scans.images)
  np.testing.assert_array_equal(scans.images, before)
  assert shifted.shape == before.shape
  assert shifted.dtype == np.uint8
  difference = np.abs(shifted.astype(int) - before)
  assert difference.mean((1, 2, 3)).min() > 2


@pytest.mark.parametrize("name", shifts.SHIFTS)
def test_a_shift_is_a_function_of_its_seed(name, scans):
  first = shifts.apply(name, scans.images, seed=1)
  np.testing.assert_array_equal(first, shifts.apply(name, scans.images, seed=1))
  other = shifts.apply(name, scans.images, seed=2)
  deterministic = name in ("inverted", "blurred")
  assert np.array_equal(first, other) == deterministic


def test_inversion_undoes_itself(scans):
  once = shifts.apply("inverted", scans.images)
  np.testing.assert_array_equal(shifts.apply("inverted", once), scans.images)


def test_shrinking_loses_no_digit(scans):
  shrunken = shifts.apply("shrunken", scans.images)
  mass = scans.images.astype(float).mean((1, 2, 3)) * (17 / 28) ** 2
  np.testing.assert_allclose(shrunken.mean((1, 2, 3)), mass, rtol=0.15)


def test_noise_has_the_strength_it_says(rng):
  grey = np.full((20, 28, 28, 3), 128, np.uint8)
  assert shifts.noise(grey, rng).std() == pytest.approx(67, abs=2)  # clipped


def test_an_unknown_shift_is_refused(scans):
  with pytest.raises(ValueError, match="'melted'"):
    shifts.apply("melted", scans.images)


def test_the_sets_keep_their_labels(scans):
  sets = shifts.out_of_distribution(scans)
  assert set(sets) == {*shifts.SHIFTS, "typeset"}
  for name in shifts.SHIFTS:
    np.testing.assert_array_equal(sets[name].labels, scans.labels)
  assert len(sets["typeset"]) == shifts.TYPESET
