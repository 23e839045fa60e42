"""Tests `experiments/reporting/bound_figure.py`."""

import pytest

from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.reporting import bound_figure
from experiments.reporting.entries import group
from tests.experiments.reporting.lines import line


@pytest.fixture
def lines():
  found = [line("zero_shot", 0, top1=0.5)]
  for seed in range(3):
    luck = 0.01 * seed
    found += [
      line(FullFinetuning(), seed, top1=0.9 + luck),
      line(GMixout(rescale=True), seed, top1=0.7 + luck),
      line(GMixout(resample_every=1, rescale=True), seed, top1=0.9 + luck),
      line(GMixout(), seed, top1=0.94 + luck),
    ]
  return found


def test_shares_are_of_full_fine_tunings_gain(lines):
  start, full, k10, k1, unscaled = group(lines)
  found = [bound_figure.shares(e, full, start) for e in (k10, k1, unscaled)]
  expected = sum((0.2 + x) / (0.4 + x) for x in (0, 0.01, 0.02)) / 3
  assert found[0].mean == pytest.approx(expected)
  assert found[1].mean == pytest.approx(1)
  assert found[2].mean > 1
  assert [bound_figure.bound_of(e) for e in (k10, k1)] == pytest.approx(
    [1 - 0.93**10, 1 - 0.93**100]
  )
  better = group([line("zero_shot", 0, top1=0.95), *lines[1:]])
  assert bound_figure.shares(better[2], better[1], better[0]) is None


def test_each_configuration_is_a_point_and_each_kind_has_a_name(lines):
  picture = bound_figure.draw(group(lines))
  (legend,) = picture.legends
  assert [text.get_text() for text in legend.get_texts()] == [
    "the bound",
    "with rescaling",
    "without rescaling",
  ]
  picture.draw_without_rendering()


@pytest.mark.parametrize("lacking", ["zero_shot", "full_finetuning"])
def test_without_what_it_is_measured_by_there_is_no_picture(lines, lacking):
  kept = [x for x in lines if x["config"]["method"]["name"] != lacking]
  assert bound_figure.draw(group(kept)) is None
  one = [x for x in lines if x["config"]["method"].get("resample_every") != 1]
  one = [x for x in one if x["config"]["method"].get("rescale", True)]
  assert bound_figure.draw(group(one)) is None
  old = [{k: v for k, v in x.items() if k != "progress_bound"} for x in lines]
  assert bound_figure.draw(group(old)) is None
