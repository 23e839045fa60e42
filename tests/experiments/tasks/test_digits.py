"""Tests `experiments/tasks/digits.py`."""

import pathlib

import numpy as np
import pytest

from experiments import configs
from experiments.data import scanned_digits
from experiments.harness.cell import Cell
from experiments.methods.zero_shot import ZeroShot
from experiments.reporting import records
from experiments.reporting.identity import identity_of
from experiments.tasks import digits
from experiments.tasks.digits import Digits
from experiments.tasks.recipe import Recipe

RESULTS = pathlib.Path(configs.__file__).parents[1] / "results"


@pytest.fixture
def no_shifts(monkeypatch):
  """Making the shifted scans takes the longest by far."""
  monkeypatch.setattr(digits.shifts, "out_of_distribution", lambda test: {})


def test_digits_are_reported_on_scans_that_no_choice_has_seen():
  opened = Digits().open(3)
  assert opened.seed == 3
  seen = {image.tobytes() for part in opened.source for image in part.images}
  assert len(opened.test) == 449
  assert not seen & {image.tobytes() for image in opened.test.images}
  assert len(opened.ood) == 8
  assert opened.augment == "none"
  assert (opened.steps, opened.batch_size) == (150, 64)


def test_the_scans_are_cut_alike_for_every_seed(no_shifts):
  parts = scanned_digits.load()
  for seed in (0, 1):
    train, validation = Digits().open(seed).source
    np.testing.assert_array_equal(train.images, parts["train"].images)
    np.testing.assert_array_equal(validation.images, parts["validation"].images)


def test_settings_reach_the_run_and_its_line(no_shifts):
  recipe = Recipe(mixup=0.2)
  asked = Digits(steps=3, batch_size=8, recipe=recipe)
  opened = asked.open(0)
  assert (opened.steps, opened.batch_size) == (3, 8)
  assert opened.recipe == recipe
  assert asked.config == Digits().config | {
    "steps": 3,
    "batch_size": 8,
    "mixup": 0.2,
  }


@pytest.mark.parametrize("file", ["curves_digits", "settings_ablations"])
def test_lines_of_the_study_are_as_published(file):
  task = Digits()
  lines = records.read(RESULTS / f"{file}_cpu.jsonl")
  for line in lines:
    rest = {k: v for k, v in line["config"].items() if k != "method"}
    assert rest == task.config
  zero_shot = [x for x in lines if x["config"]["method"]["name"] == "zero_shot"]
  assert bool(zero_shot) == (file == "curves_digits")
  for line in zero_shot:
    cell = Cell(task, ZeroShot(), line["seed"])
    assert cell.config == line["config"]
    assert cell.identity == identity_of(line["config"], line["seed"])
