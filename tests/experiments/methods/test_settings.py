"""Tests how hyperparameters are read from a command line."""

import pytest

from experiments.methods import from_name
from experiments.methods.settings import changed, parse_grid, parse_settings


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
    ("uniform_soup.factors=(1,2),[1,3.5]", [(1.0, 2.0), (1.0, 3.5)]),
    ("uniform_soup.factors=(1, 2)", [(1.0, 2.0)]),
    ("manifold_mixing.optimizer='a,b',c,a=b", ["a,b", "c", "a=b"]),
    ('manifold_mixing.optimizer="(",x', ["(", "x"]),
    ("swa.every= 1 , 2 ", [1, 2]),
    ("swa.start=1e-3,1", [1e-3, 1.0]),
    ("gmixout.rescale=True,false", [True, False]),
    ("gmixout.rescale=1,0", [True, False]),
    ("gmixout.sampler=uniform,neuron", ["uniform", "neuron"]),
    ("gmixout.learning_rate=1,-2", [1.0, -2.0]),
  ],
)
def test_values_stand_between_commas_and_have_the_fields_type(given, values):
  found = [
    value
    for one in parse_grid([given])
    for fields in one.values()
    for value in fields.values()
  ]
  assert found == values
  assert [type(value) for value in found] == [type(value) for value in values]


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
  (["swa.every=2.5"], r"swa\.every=2\.5: .* a whole number, got 2\.5"),
  (["swa.every=True"], "a whole number, got True"),
  (["gmixout.rescale=off"], "true or false, got 'off'"),
  (["gmixout.rescale=1,true"], "has the value True twice"),
  (["gmixout.learning_rate=abc"], "a finite number, got 'abc'"),
  (["gmixout.learning_rate=1e999"], "a finite number, got inf"),
  (["gmixout.learning_rate=True"], "a finite number, got True"),
  (["gmixout.sampler=foo"], "one of stratified, uniform, .* got 'foo'"),
  (["uniform_soup.factors=2"], r"numbers in brackets, such as \(1,2\), got 2"),
  (["uniform_soup.factors=(1,x)"], r"numbers in brackets, .* got '\(1,x\)'"),
  (["uniform_soup.factors=(1,None)"], "a finite number, got None"),
  (["manifold_mixing.optimizer=3"], "a word, got 3"),
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


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ("gmixout.sparsity=1.5", r"sparsity must be in \[0, 1\).*1\.5"),
    ("gmixout.resample_every=0", "resample_every must be an integer .*got 0"),
    ("mixout.sparsity=-1", r"sparsity must be in \[0, 1\).*-1\.0"),
    ("wise_ft.alpha=2", "alpha must be"),
  ],
)
def test_what_a_method_does_not_allow_is_refused_before_images_are_read(
  given, message
):
  (settings,) = parse_grid([given])
  with pytest.raises(ValueError, match=message):
    changed(from_name(given.split(".")[0]), settings)
