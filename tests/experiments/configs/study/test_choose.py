"""Tests `experiments/configs/study/choose.py`."""

import pytest

from experiments.configs.study import choose, plan
from experiments.harness.cell import Cell
from experiments.tasks.digits import Digits
from tests.experiments.configs.study.lines import line

SEEDS = (0, 1)


@pytest.fixture
def grid():
  return plan.grids((1e-5, 1e-4, 1e-3))["full_finetuning"]


def lines_of(grid, accuracies):
  """With two seeds, which differ by luck that rates share."""
  return [
    line(Cell(Digits(), method, seed), top1 + 0.01 * seed)
    for method, top1 in zip(grid.methods(), accuracies, strict=True)
    for seed in SEEDS
  ]


@pytest.mark.parametrize(
  ("accuracies", "index", "at_bottom", "at_top"),
  [
    # At .905 of 400 images the standard error is .0147.
    ((0.80, 0.90, 0.70), 1, False, False),
    ((0.887, 0.90, 0.70), 0, True, False),
    ((0.80, 0.887, 0.90), 1, False, True),
    ((0.80, 0.884, 0.90), 2, False, True),
  ],
)
def test_the_smallest_rate_within_one_standard_error(
  grid, accuracies, index, at_bottom, at_top
):
  lines = lines_of(grid, accuracies)
  found = choose.choose(Digits(), grid, SEEDS, lines)
  assert found == (grid.methods()[index], at_bottom, at_top)


def test_a_run_that_is_missing_is_named(grid):
  lines = lines_of(grid, (0.8, 0.9, 0.7))
  with pytest.raises(LookupError, match=r"not run yet: .*0\.001.*, seed 1"):
    choose.choose(Digits(), grid, SEEDS, lines[:-1])
  with pytest.raises(LookupError, match="seed 2"):
    choose.choose(Digits(), grid, (0, 1, 2), lines)


def test_a_grid_grows_where_its_choice_is_at_an_edge(grid):
  lines = lines_of(grid, (0.887, 0.887, 0.90))
  found = choose.choose(Digits(), grid, SEEDS, lines)
  longer = choose.grown({"a": grid}, {"a": found})["a"]
  assert longer.rates == (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
  assert longer.methods()[1:-1] == grid.methods()
  inside = choose.Choice(grid.methods()[1], False, False)
  assert choose.grown({"a": grid}, {"a": inside}) == {"a": grid}
