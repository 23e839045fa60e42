"""Tests `experiments/configs/study/plan.py`."""

import dataclasses

import pytest

from experiments import methods
from experiments.configs.study import plan, scales
from experiments.methods.gmixout import GMixout


def test_grids_have_one_size_and_bracket_the_recipe():
  searched = plan.grids((1e-5, 3e-5, 1e-4))
  for grid in searched.values():
    assert len(grid.rates) == 3
    assert list(grid.rates) == sorted(grid.rates)
    tried = grid.methods()
    assert len({methods.name_of(method) for method in tried}) == 1
    assert len(set(tried)) == 3
  lr = [m.learning_rate for m in searched["gmixout"].methods()]
  assert lr == [5e-5, 1.5e-4, 5e-4]
  settings = {
    "gmixout": (10, True, "stratified"),
    "gmixout_each_step": (1, True, "stratified"),
    "gmixout_without_rescale": (10, False, "stratified"),
    "gmixout_neurons": (10, False, "neuron"),
  }
  for name, expected in settings.items():
    for method in searched[name].methods():
      found = method.resample_every, method.rescale, method.sampler
      assert found == expected


def test_a_grid_grows_by_the_ratio_at_its_end():
  grid = plan.Grid(lambda rate: GMixout(learning_rate=rate), (1e-4, 3e-4, 1e-3))
  assert grid.grown(down=True, up=True).rates == (3.3e-5, *grid.rates, 3.3e-3)
  assert grid.grown(down=False, up=False) == grid


def test_all_methods_are_compared():
  searched = plan.grids((1e-5, 3e-5, 1e-4))
  chosen = {name: grid.methods()[0] for name, grid in searched.items()}
  compared = [*chosen.values(), *plan.of_runs(chosen), *plan.of_three(chosen)]
  found = {methods.name_of(m).split("+")[-1] for m in compared}
  # With the elements that it is run with, Mixout is High-Rate Mixout.
  assert found == set(methods.METHODS) - {"mixout"}
  for names in (plan.COMPARED, plan.CORE, plan.OF_WORDS):
    assert set(names) <= set(plan.EVERY) == set(searched)
  assert plan.CORE[0] == "full_finetuning"


def test_wise_ft_is_a_curve_of_one_run():
  full = plan.grids((1e-5, 3e-5))["full_finetuning"].methods()[0]
  curve = plan.wise_ft_curve(full)
  assert {method.of for method in curve} == {full}
  assert [method.alpha for method in curve] == sorted(plan.ALPHAS)


def test_the_bound_is_held_against_all_its_settings():
  scaled = GMixout(learning_rate=1e-2, rescale=True)
  unscaled = GMixout(learning_rate=2e-2)
  found = plan.bounded(scaled, unscaled)
  settings = {(m.resample_every, m.anchor_decay, m.rescale) for m in found}
  assert len(settings) == len(found) == 4 * 3 * 2
  rates = {(m.rescale, m.resample_every): m.learning_rate for m in found}
  assert rates[True, 10] == pytest.approx(1e-2)
  assert rates[True, 1] == pytest.approx(1e-1)
  assert {rates[False, k] for k in (1, 3, 10, 50)} == {2e-2}


def test_seeds_are_five_and_no_part_has_others():
  for scale in (scales.CPU, scales.GPU):
    assert len(set(scale.seeds)) == 5


def test_ablations_change_one_thing_or_two():
  base = GMixout(learning_rate=3e-3)
  found = plan.variants(base)
  assert found[0] == base
  for method, changes in zip(found, plan.VARIANTS.values(), strict=True):
    assert method == dataclasses.replace(base, **changes)
  assert len(set(found)) == len(found)
