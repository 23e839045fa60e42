"""Tests how hyperparameters are read from a command line."""

import pytest

from experiments.methods.settings import parse_grid, parse_settings


def test_settings_are_values_or_words_by_method():
  given = ["swa.start=0.25", "uniform_soup.factors=(1.0, 2.0)", "swa.every=3"]
  expected = {
    "swa": {"start": 0.25, "every": 3},
    "uniform_soup": {"factors": (1.0, 2.0)},
    "gmixout": {"sampler": "uniform"},
  }
  given = [*given, "gmixout.sampler=uniform"]
  assert parse_settings(given) == expected
  assert parse_grid(given) == [expected]
  assert parse_settings([]) == {}
  assert parse_grid([]) == [{}]


def test_a_grid_has_every_combination_and_the_last_setting_varies_fastest():
  given = ["gmixout.anchor_decay=0,0.3,0.9", "swa.every=2", "swa.start=0.1,0.2"]
  assert parse_grid(iter(given)) == [
    {"gmixout": {"anchor_decay": decay}, "swa": {"every": 2, "start": start}}
    for decay in (0, 0.3, 0.9)
    for start in (0.1, 0.2)
  ]


@pytest.mark.parametrize(
  ("given", "values"),
  [
    ("(1,2),(1,3)", [(1, 2), (1, 3)]),
    ("(1, 2)", [(1, 2)]),
    ("((1,2),3),[4,5]", [((1, 2), 3), [4, 5]]),
    ("'a,b',c", ["a,b", "c"]),
    ('"(",x', ["(", "x"]),
    (" 1 , 2 ", [1, 2]),
    ("1e-3,3e-4", [1e-3, 3e-4]),
    ("True,None", [True, None]),
    ("uniform,neuron", ["uniform", "neuron"]),
    ("-1,2", [-1, 2]),
    ("a=b", ["a=b"]),
  ],
)
def test_values_stand_between_commas_outside_of_brackets(given, values):
  found = parse_grid([f"uniform_soup.factors={given}"])
  assert [one["uniform_soup"]["factors"] for one in found] == values
  kinds = [type(one["uniform_soup"]["factors"]) for one in found]
  assert kinds == list(map(type, values))


WRONG = [
  (["swa"], "NAME.FIELD=VALUE .* got 'swa'"),
  (["swa=1"], "NAME.FIELD=VALUE .* got 'swa=1'"),
  (["no.x=1"], "NAME.FIELD=VALUE .* got 'no.x=1'"),
  (["swa.x=1"], "swa has start, every, got 'swa.x=1'"),
  (
    ["swa.every=1", "swa.start=0.5", "swa.every=2"],
    r"swa\.every is given twice, as 'swa\.every=1' and 'swa\.every=2'",
  ),
  (["swa.every=3", "swa.every=3"], r"swa\.every is given twice"),
  (["swa.every=1,2,1"], r"'swa\.every=1,2,1' has the value 1 twice"),
  (["gmixout.sparsity=0.5,0.50"], "has the value 0.5 twice"),
  (["swa.every=1,,2"], r"'swa\.every=1,,2' has a value that is empty"),
  (["swa.every="], r"'swa\.every=' has a value that is empty"),
  (["swa.every=1,"], r"'swa\.every=1,' has a value that is empty"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
@pytest.mark.parametrize("parse", [parse_settings, parse_grid])
def test_what_is_no_setting_is_quoted(parse, given, message):
  with pytest.raises(ValueError, match=message):
    parse(given)


def test_where_one_run_is_made_several_values_are_refused():
  with pytest.raises(ValueError, match=r"one value here, got 'swa\.every=1,2'"):
    parse_settings(["swa.start=0.5", "swa.every=1,2"])


def test_what_a_method_works_on_is_no_setting():
  """A word in its place would be found out in the middle of a run."""
  with pytest.raises(ValueError, match=r"wise_ft has alpha, got 'wise_ft.of="):
    parse_settings(["wise_ft.of=gmixout"])
