"""Tests that the bench of input runs, and that its measures measure."""

import json

import numpy as np

from experiments.bench import input as input_bench
from experiments.bench import pictures
from experiments.data import workers
from experiments.data.workers import Workers
from tests.combinations import EXHAUSTIVE


@EXHAUSTIVE
def test_all_figures_are_written(tmp_path, monkeypatch):
  monkeypatch.setenv("NPROC", "2")  # which the bench changes
  monkeypatch.setattr(input_bench, "ROWS", 50)
  path = tmp_path / "figures.json"
  input_bench.run(path, repeats=1, count=2, batch_size=2, steps=2)
  found = json.loads(path.read_text())
  assert set(input_bench.TARGETS) | set(input_bench.LEAST) <= set(found)
  assert all(np.isfinite(value) and value > 0 for value in found.values())
  assert workers.chosen() == Workers()  # as before


def test_both_sides_see_the_same_crop():
  for number, data in enumerate(pictures.jpegs(500, 375, 2)):
    ours, theirs = (
      way(data, np.random.default_rng(number)).astype(float)
      for way in (input_bench.ours, input_bench.pillow)
    )
    assert np.abs(ours - theirs).mean() < 3
    assert np.abs(ours - theirs[:, ::-1]).mean() > 10


def test_detail_that_is_lost_or_made_up_is_measured():
  (data,) = pictures.jpegs(500, 375, 1)
  picture = input_bench.pillow(data, np.random.default_rng(0)).astype(float)
  whole = input_bench.high_frequencies(picture)
  # Averaged over two columns, and with half as much noise again.
  blurred = (picture + np.roll(picture, 1, axis=1)) / 2
  noise = np.random.default_rng(0).normal(0, 20, picture.shape)
  assert input_bench.high_frequencies(blurred) < 0.8 * whole
  assert input_bench.high_frequencies(picture + noise) > 1.2 * whole
