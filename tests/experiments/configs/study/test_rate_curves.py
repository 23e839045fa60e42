"""Tests `experiments/configs/study/rate_curves.py`."""

import dataclasses

import numpy as np
import pytest

from experiments.configs.study import plan, rate_curves
from experiments.harness.cell import Cell
from experiments.reporting import records
from experiments.tasks.digits import Digits
from tests.experiments.configs.study.lines import line
from tests.experiments.harness.small import FULL


def looked_at(variant, scores):
  results = []
  for rate, brier in scores.items():
    method = dataclasses.replace(
      plan.GMixout(learning_rate=rate), **plan.VARIANTS[variant]
    )
    record = line(Cell(Digits(), method, plan.RATES_SEED), 0.5, brier)
    record["metrics"] |= {"id": 0.5, "mean_ood": 0.4}
    results.append(record)
  return results


def test_the_best_rate_is_the_bottom_of_a_parabola():
  # log y = (log x − log 0.004)² has its bottom at 0.004.
  scores = {
    rate: float(np.exp(np.log(rate / 0.004) ** 2))
    for rate in (0.1, 0.001, 0.003, 0.01)
  }
  found = rate_curves.by_variant(looked_at("k 50", scores))
  assert list(found) == ["k 50"]
  assert rate_curves.best_rate(found["k 50"]) == pytest.approx(0.004)
  falling = rate_curves.by_variant(
    looked_at("k 1", {0.1: 0.1, 0.01: 0.2, 0.03: 0.15})
  )
  assert rate_curves.best_rate(falling["k 1"]) == pytest.approx(0.1)


def test_a_picture_and_a_table_are_made_of_what_is_there(tmp_path, capsys):
  path = tmp_path / "rule.jsonl"
  for variant in ("as it is", "moments reset, k 50"):
    for record in looked_at(variant, {1e-3: 0.2, 1e-2: 0.1, 1e-1: 0.3}):
      records.append(path, record)
  rate_curves.show(path, tmp_path / "pictures" / "rule.png")
  assert "moments reset" in capsys.readouterr().out
  assert (tmp_path / "pictures" / "rule.png").stat().st_size > 10_000
  other = Cell(Digits(), FULL, 0)
  records.append(path, line(other, 0.5))
  with pytest.raises(ValueError, match="line 7 is of 'full_finetuning'"):
    rate_curves.show(path)
