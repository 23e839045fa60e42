"""Tests `experiments/metrics/selection.py` on scripted accuracies."""

import math

import pytest

from experiments import metrics


@pytest.mark.parametrize(
  ("accuracies", "images", "expected"),
  [
    # At .9 of 400 the error is .015.
    ([0.80, 0.886, 0.90, 0.70], 400, 1),
    ([0.80, 0.884, 0.90, 0.70], 400, 2),
    ([0.886, 0.80, 0.90], 400, 0),  # the first, whatever lies between
    ([0.90, 0.90, 0.90], 400, 0),
    ([0.5], 10, 0),
    # More images, less tolerance.
    ([0.886, 0.90], 400, 0),
    ([0.886, 0.90], 40_000, 1),
    # Nothing is uncertain of 1, so only as good ones count.
    ([0.999, 1.0, 1.0], 10, 1),
    ([0.0, 0.0], 10, 0),
  ],
)
def test_the_most_cautious_within_one_standard_error(
  accuracies, images, expected
):
  assert metrics.one_standard_error(accuracies, images) == expected


def test_the_error_is_that_of_a_proportion(rng):
  drawn = rng.binomial(500, 0.83, size=20_000) / 500
  assert metrics.standard_error(0.83, 500) == pytest.approx(
    drawn.std(), rel=0.02
  )


@pytest.mark.parametrize(
  ("accuracies", "images", "message"),
  [
    ([], 10, "at least one, got none"),
    ([0.5, 1.2], 10, r"accuracy must be in \[0, 1\], got 1.2"),
    ([0.5, math.nan], 10, "got nan"),
    ([0.5], 0, "images must be at least 1, got 0"),
  ],
)
def test_what_makes_no_sense_is_refused(accuracies, images, message):
  with pytest.raises(ValueError, match=message):
    metrics.one_standard_error(accuracies, images)
