"""Tests `experiments/reporting/bound_figure.py`."""

import numpy as np
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


def test_accuracies_stand_over_the_bound(lines):
  *_, k10, k1, unscaled = group(lines)
  bounds = [bound_figure.bound_of(entry) for entry in (k10, k1, unscaled)]
  assert bounds[:2] == pytest.approx([1 - 0.93**10, 1 - 0.93**100])
  views = bound_figure.draw(group(lines)).axes
  for view, metric in zip(views, ("id", "mean_ood"), strict=True):
    points = [each[0].get_xydata()[0] for each in view.containers]
    expected = [
      (bound, 100 * entry.interval(metric).mean)
      for entry, bound in zip((k10, k1, unscaled), bounds, strict=True)
    ]
    assert np.ravel(points) == pytest.approx(np.ravel(expected))


def test_each_kind_has_a_name(lines):
  picture = bound_figure.draw(group(lines))
  (legend,) = picture.legends
  assert {text.get_text() for text in legend.get_texts()} == {
    "zero-shot",
    "full fine-tuning",
    "with rescaling",
    "without rescaling",
  }
  picture.draw_without_rendering()


def test_without_two_bounds_there_is_no_picture(lines):
  one = [x for x in lines if x["config"]["method"].get("resample_every") != 1]
  one = [x for x in one if x["config"]["method"].get("rescale", True)]
  assert bound_figure.draw(group(one)) is None
  old = [{k: v for k, v in x.items() if k != "progress_bound"} for x in lines]
  assert bound_figure.draw(group(old)) is None
