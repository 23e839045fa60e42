"""Tests how hyperparameters are read from a command line."""

import pytest

from experiments.methods.settings import parse_settings


def test_settings_are_values_or_words_by_method():
  given = ["swa.start=0.25", "uniform_soup.factors=(1.0, 2.0)", "swa.every=3"]
  assert parse_settings([*given, "gmixout.sampler=uniform"]) == {
    "swa": {"start": 0.25, "every": 3},
    "uniform_soup": {"factors": (1.0, 2.0)},
    "gmixout": {"sampler": "uniform"},
  }
  assert parse_settings([]) == {}


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ("swa", "NAME.FIELD=VALUE .* got 'swa'"),
    ("swa=1", "NAME.FIELD=VALUE .* got 'swa=1'"),
    ("no.x=1", "NAME.FIELD=VALUE .* got 'no.x=1'"),
    ("swa.x=1", "swa has of, start, every, got 'swa.x=1'"),
  ],
)
def test_what_is_no_setting_is_quoted(given, message):
  with pytest.raises(ValueError, match=message):
    parse_settings([given])
