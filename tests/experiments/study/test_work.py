"""Tests `experiments/study/work.py`."""

import dataclasses
import time

from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.model_soups import UniformSoup
from experiments.methods.wise_ft import WiseFT
from experiments.study import choose, plan, work
from gmixout_jax.checkpoint.folders import exclusive
from tests.experiments import tiny
from tests.experiments.study.settings import FULL, TINY, Tiny


def test_missing_cells_run_once_and_lines_are_those_of_the_cells(desk):
  wise = WiseFT(of=FULL)
  cells = list(plan.by_seed(TINY, [LinearProbe(), FULL, wise], (0, 1)))
  assert desk.work("x", cells[:2])
  assert len(desk.lines("x")) == 2
  assert not desk.missing("x", cells[:2])
  assert desk.missing("x", cells) == cells[2:]
  assert desk.work("x", cells)
  lines = desk.lines("x")
  assert len(lines) == 6
  assert [choose.line_of(cell, lines)["seed"] for cell in cells] == [
    *(0, 0, 0, 1, 1, 1)
  ]
  for record in lines:
    assert sorted(record["metrics"]["ood"]) == ["away"]
  assert desk.work("x", cells)
  assert desk.lines("x") == lines


def test_what_another_process_runs_is_left_to_it(desk):
  cells = list(plan.by_seed(TINY, [LinearProbe()], (0, 1)))
  with exclusive(desk.locks / work._lock("x", cells[0])):
    assert not desk.work("x", cells)
  assert [record["seed"] for record in desk.lines("x")] == [1]
  assert desk.work("x", cells)


def test_no_cell_is_begun_after_the_deadline(desk):
  cells = list(plan.by_seed(TINY, [LinearProbe()], (0,)))
  late = dataclasses.replace(desk, deadline=time.monotonic() - 1)
  assert not late.work("x", cells)
  assert desk.lines("x") == []


def test_cells_with_runs_in_common_are_run_together():
  soup = UniformSoup(of=FULL, runs=2, factors=(1.0,))
  listed = [LinearProbe(), FULL, FullFinetuning(learning_rate=1.0), soup]
  groups = list(work._shared(list(plan.by_seed(TINY, listed, (0,)))))
  assert [[cell.method for cell in group] for group in groups] == [
    [LinearProbe()],
    [FULL, soup],
    [FullFinetuning(learning_rate=1.0)],
  ]


def test_choices_are_made_on_validation_images_alone(desk, monkeypatch):
  loaded = TINY.load(0)
  held_out = tiny.split(seed=7)
  monkeypatch.setattr(
    Tiny, "load", lambda self, seed: loaded._replace(held_out=held_out)
  )
  cells = [plan.Cell(TINY, LinearProbe(), 0)]
  assert desk.work("x", cells)
  (record,) = desk.lines("x")
  details = record["metrics"]["details"]
  assert sum(details["validation"]["reliability"]["count"]) == len(
    loaded.task.source.validation
  )
  assert sum(details["id"]["reliability"]["count"]) == len(held_out)
