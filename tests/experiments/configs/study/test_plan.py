"""Tests `experiments/configs/study/plan.py`."""

from experiments import methods
from experiments.configs.study import plan, scales


def test_grids_have_one_size_and_bracket_the_recipe():
  searched = plan.grids((1e-5, 3e-5, 1e-4))
  for name, grid in searched.items():
    assert len(grid.rates) == 3
    assert list(grid.rates) == sorted(grid.rates)
    tried = grid.methods()
    named = {methods.name_of(method) for method in tried}
    assert named == {name.removesuffix("_each_step")}
    assert len(set(tried)) == 3
  lr = [m.learning_rate for m in searched["gmixout"].methods()]
  assert lr == [5e-5, 1.5e-4, 5e-4]
  assert {m.resample_every for m in searched["gmixout"].methods()} == {10}
  patient = searched["gmixout_each_step"].methods()
  assert {m.resample_every for m in patient} == {1}


def test_all_methods_are_compared():
  searched = plan.grids((1e-5, 3e-5, 1e-4))
  chosen = {name: grid.methods()[0] for name, grid in searched.items()}
  compared = [*plan.every(chosen), *plan.of_words(chosen)]
  found = {methods.name_of(m).split("+")[-1] for m in compared}
  assert found == set(methods.METHODS)
  assert len(set(plan.every(chosen))) == len(plan.every(chosen))
  reduced = {methods.name_of(m) for m in plan.reduced(chosen)}
  assert {"gmixout", "full_finetuning", "linear_probe"} <= reduced


def test_rates_are_chosen_with_a_seed_that_is_not_reported():
  for scale in (scales.CPU, scales.GPU):
    assert plan.RATES_SEED not in scale.seeds
    assert len(scale.seeds) >= 5


def test_on_the_digits_there_are_all_methods():
  searched = plan.grids((1e-4, 3e-4, 1e-3))
  chosen = {name: searched[name].methods()[1] for name in plan.ON_DIGITS}
  assert set(chosen) == set(searched)
  names = [methods.name_of(method) for method in plan.on_digits(chosen)]
  assert set(methods.METHODS) <= set(names)
  assert {name for name in names if "+" in name} == {
    "gmixout+wise_ft",
    "gmixout+very_large_dropout",
    "gmixout+uniform_soup",
  }
  twice = {name for name in names if names.count(name) > 1}
  assert twice == {"gmixout"}  # of which there are two k
