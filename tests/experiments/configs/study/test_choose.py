"""Tests `experiments/configs/study/choose.py`."""

import dataclasses

import pytest

from experiments.configs.study import choose, plan
from experiments.harness.cell import Cell
from experiments.tasks.digits import Digits
from tests.experiments.configs.study.lines import line


def test_the_most_accurate_rate_is_chosen_and_of_equals_the_calibrated():
  grid = plan.grids((1e-5, 3e-5, 1e-4))["full_finetuning"]
  low, middle, high = grid.methods()
  cells = [Cell(Digits(), m, plan.RATES_SEED) for m in (low, middle, high)]

  def pick(*scores):
    lines = [line(c, *s) for c, s in zip(cells, scores, strict=True)]
    return choose.best(Digits(), grid.methods(), lines)

  assert pick((0.8, 0.1), (0.9, 0.5), (0.7, 0.0)) == middle
  assert pick((0.9, 0.3), (0.9, 0.2), (0.9, 0.4)) == middle
  assert pick((0.9, 0.3), (0.9, 0.2), (0.91, 0.4)) == high
  with pytest.raises(LookupError, match="1e-05"):
    choose.best(Digits(), grid.methods(), [])
  # Where there are images for choosing alone, those decide.
  lines = [line(cell, 0.5) for cell in cells]
  for record, top1 in zip(lines, (0.1, 0.3, 0.2), strict=True):
    own = {"top1": top1, "brier": 0.5}
    record["metrics"]["details"]["validation"] = own
  lines[0]["metrics"]["details"]["id"]["top1"] = 1.0
  assert choose.best(Digits(), grid.methods(), lines) == middle
  # Another seed's line is no evidence.
  other = line(dataclasses.replace(cells[0], seed=0), 1.0)
  with pytest.raises(LookupError):
    choose.best(Digits(), grid.methods(), [other])


def test_a_best_rate_at_the_end_of_its_grid_is_named():
  searched = plan.grids((1e-5, 3e-5, 1e-4))
  chosen = {
    "full_finetuning": searched["full_finetuning"].methods()[2],
    "gmixout": searched["gmixout"].methods()[1],
    "lora": searched["lora"].methods()[0],
  }
  assert choose.edges(searched, chosen) == ["full_finetuning", "lora"]
