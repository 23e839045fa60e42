"""Tests `experiments/reporting/rule_effect.py` on lines of a known answer."""

import pytest

from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.wise_ft import WiseFT
from experiments.reporting import rule_effect
from experiments.reporting.entries import group
from tests.experiments.reporting.lines import line

RATES = (1e-4, 1e-3, 1e-2)


def swept(make, ids, oods):
  return [
    line(make(rate), seed, top1=top1, ood=ood)
    for seed in range(3)
    for rate, top1, ood in zip(RATES, ids, oods, strict=True)
  ]


full = lambda rate: FullFinetuning(learning_rate=rate)
ours = lambda rate: GMixout(learning_rate=rate)


def test_the_rule_is_compared_with_the_best_of_every_method():
  lines = [
    # Of 400 images a standard error is .015: the rule takes the second.
    *swept(full, (0.5, 0.89, 0.9), (0.7, 0.6, 0.2)),
    # The first is the best: there is none below it.
    *swept(ours, (0.8, 0.5, 0.4), (0.5, 0.9, 0.9)),
    *(line(WiseFT(of=full(1e-3), alpha=a), 0, top1=a, ood=a) for a in (0.1, 1)),
    line(FullFinetuning(learning_rate=1.0, weight_decay=0.5), 0, top1=1.0),
  ]
  assert rule_effect.effect(group(lines)) == (
    *(2, pytest.approx(0.85), pytest.approx(0.35)),
    *(pytest.approx(0.845), pytest.approx(0.55), 1, 1),
  )


def test_where_nothing_was_chosen_there_is_no_effect():
  with pytest.raises(ValueError, match="no method was tested OOD at several"):
    rule_effect.effect(group([line(full(1e-3), 0)]))
