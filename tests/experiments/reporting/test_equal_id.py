"""Tests `experiments/reporting/equal_id.py` on lines whose answer is known."""

import csv
import io

import numpy as np
import pytest

from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.wise_ft import WiseFT
from experiments.reporting import equal_id, equal_id_figure
from experiments.reporting.entries import by_task
from tests.experiments.reporting.lines import line

RATES = (1e-4, 1e-3, 1e-2)
SEEDS = range(5)


def swept(make, scores, accuracies, luck, **changes):
  """Lines of a method at three rates with five seeds."""
  return [
    line(make(rate), seed, brier=score, ood=accuracy + luck[seed], **changes)
    for seed in SEEDS
    for rate, score, accuracy in zip(RATES, scores, accuracies, strict=True)
  ]


full = lambda rate: FullFinetuning(learning_rate=rate)
ours = lambda rate: GMixout(learning_rate=rate)
each = lambda rate: GMixout(learning_rate=rate, resample_every=1)


@pytest.fixture
def lines(rng):
  luck, other = rng.normal(0, 0.05, 5), rng.normal(0, 0.002, 5)
  return [
    # Down to .2, where OOD is .5; then past it.
    *swept(full, (0.6, 0.2, 0.9), (0.5, 0.7, 0.1), luck),
    # Two points better all along, and as far.
    *swept(ours, (0.6, 0.2, 0.3), (0.52, 0.72, 0.5), luck + other),
    # The same at half of the scores; the others it never reaches.
    *swept(each, (0.6, 0.4, 0.5), (0.5, 0.6, 0.1), luck),
  ]


def test_differences_are_those_at_equal_scores(lines):
  (found,) = equal_id.compare(by_task(lines))
  assert found.task == "digits"
  assert found.levels == pytest.approx((0.52, 0.44, 0.36, 0.28, 0.2))
  rows = {}
  for row in found.rows:
    rows.setdefault(row.method, []).append(row)
  assert [len(own) for own in rows.values()] == [5, 5, 2]
  luck = np.mean([r["metrics"]["mean_ood"] for r in lines[::3][:5]]) - 0.5
  for row, level in zip(rows["Full fine-tuning"], found.levels, strict=True):
    assert row.paired is None
    assert row.ood == pytest.approx(0.5 + (0.6 - level) / 2 + luck)
  for row in rows["GMixout (k 10)"]:
    difference = row.paired.difference
    assert difference.mean == pytest.approx(0.02, abs=0.004)
    assert difference.low < 0.02 < difference.high
    assert difference.high - difference.low < 0.02  # luck is paired away
    assert row.p < 0.01
    assert row.p >= row.paired.p_t  # corrected
  for row in rows["GMixout (k 1)"]:
    assert row.paired.difference.mean == pytest.approx(0, abs=1e-12)
    assert row.seeds == 5


def test_over_all_scores_the_best_is_first(lines):
  (found,) = equal_id.compare(by_task(lines))
  best, tied = found.overall
  assert best.curve.label == "GMixout (k 10)"
  assert best.paired.difference.mean == pytest.approx(0.02, abs=0.004)
  assert (best.reached, tied.reached) == (5, 2)
  assert tied.paired.difference.mean == pytest.approx(0, abs=1e-12)
  assert best.p < 0.01 < tied.p


def test_a_single_seed_has_a_difference_and_no_interval(lines):
  alone = [each for each in lines if each["seed"] == 0]
  (found,) = equal_id.compare(by_task(alone))
  row = next(row for row in found.rows if row.method == "GMixout (k 10)")
  assert row.paired.difference.mean == pytest.approx(0.02, abs=0.01)
  assert np.isnan(row.paired.difference.low)
  assert np.isnan(row.p)
  assert found.overall == ()


def test_the_csv_has_the_rows(lines):
  (found,) = equal_id.compare(by_task(lines))
  text = equal_id.to_csv([found])
  rows = list(csv.DictReader(io.StringIO(text)))
  assert tuple(rows[0]) == (
    *("task", "method", "id_score", "ood", "difference"),
    *("low", "high", "p", "seeds"),
  )
  assert len(rows) == len(found.rows) == 12
  assert rows[0]["difference"] == rows[0]["p"] == ""
  row, told = found.rows[5], rows[5]
  assert told["method"] == row.method == "GMixout (k 10)"
  for name, value in (
    ("id_score", row.id_score),
    ("ood", row.ood),
    ("difference", row.paired.difference.mean),
    ("low", row.paired.difference.low),
    ("high", row.paired.difference.high),
    ("p", row.p),
  ):
    assert float(told[name]) == pytest.approx(value, rel=1e-5)
  assert told["seeds"] == "5"


def test_longer_runs_compare_with_the_full_fine_tuning_of_fewer_steps(rng):
  luck = np.zeros(5)
  scores, accuracies = (0.6, 0.2, 0.3), (0.5, 0.7, 0.5)
  lines = [
    *swept(full, scores, accuracies, luck),
    *swept(full, scores, (0.4, 0.6, 0.4), luck, steps=400),
    *swept(ours, scores, (0.5, 0.8, 0.5), luck, steps=143),
    *swept(ours, scores, (0.4, 0.9, 0.5), luck, steps=571),
    *swept(ours, scores, (0.4, 0.9, 0.5), luck, steps=143, data="other"),
    *swept(each, scores, (0.5, 0.7, 0.5), luck),
  ]
  short, long = equal_id.compare(by_task(lines))
  assert (short.task, long.task) == ("digits, 100 steps", "digits, 400 steps")
  names = [curve.label for curve in short.others]
  assert names == ["GMixout (k 1)", "GMixout (k 10), 143 steps"]
  assert [c.label for c in long.others] == ["GMixout, 571 steps"]
  last = short.rows[-1]
  assert last.paired.difference.mean == pytest.approx(0.1)


def test_the_input_of_before_stays_out(lines):
  old = [
    {**each, "config": each["config"] | {"weights": "vit.safetensors"}}
    for each in lines
  ]
  assert equal_id.compare(by_task(old)) == []
  marked = [*lines, *old]
  (found,) = equal_id.compare(by_task(marked))
  assert found.task == "digits"


def test_wise_ft_is_a_curve_over_alpha(lines):
  line_of = lambda alpha, score, ood, seed: line(
    WiseFT(of=full(1e-3), alpha=alpha), seed, brier=score, ood=ood
  )
  lines += [
    line_of(alpha, score, ood, seed)
    for seed in SEEDS
    for alpha, score, ood in ((0.3, 0.5, 0.9), (0.6, 0.3, 0.8), (0.9, 0.2, 0.7))
  ]
  (found,) = equal_id.compare(by_task(lines))
  (curve,) = [c for c in found.others if c.method == "wise_ft"]
  assert curve.label == "WiSE-FT"
  np.testing.assert_allclose(curve.runs[0].id_score, [0.5, 0.3, 0.2])
  row = [r for r in found.rows if r.method == "WiSE-FT"][1]
  assert row.id_score == pytest.approx(0.36)
  assert row.ood == pytest.approx(0.83)


def test_by_nll_where_it_is_asked_for(lines):
  assert equal_id.compare(by_task(lines), "nll") == []  # which none tells
  for each in lines:
    details = each["metrics"]["details"]["id"]
    details["nll"] = 10 * details["brier"]
  (found,) = equal_id.compare(by_task(lines), "nll")
  assert found.levels == pytest.approx((5.2, 4.4, 3.6, 2.8, 2.0))


def test_the_picture_has_a_row_for_each_task(lines):
  again = [each | {"config": each["config"] | {"steps": 600}} for each in lines]
  found = equal_id.compare(by_task([*lines, *again]))
  one = equal_id_figure.draw(found[:1], "brier")
  two = equal_id_figure.draw(found, "brier")
  assert len(one.axes) == 2
  assert len(two.axes) == 4
  two.draw_without_rendering()
  left, right = two.axes[:2]
  assert [text.get_text() for text in right.get_yticklabels()] == [
    "GMixout (k 10)",
    "GMixout (k 1) [2/5]",
  ]
  low, high = left.get_xlim()
  assert low > high  # better to the right
