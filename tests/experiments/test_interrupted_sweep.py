"""A sweep that ends anywhere and is started again has each line once."""

import collections
import json
import signal
import time

import pytest

from experiments import sweep
from experiments.harness import measured
from experiments.reporting import records
from experiments.training import loop
from tests.combinations import EXHAUSTIVE
from tests.experiments import killed, tiny
from tests.experiments.harness.small import noting_fits


@pytest.fixture
def start_again(tmp_path, monkeypatch, capsys):
  """Runs the sweep here, to its end unless something is patched."""
  tiny.use_tiny_task(monkeypatch)

  def main(saves):
    capsys.readouterr()
    sweep.main(sweep.parse(killed.arguments(tmp_path, saves=saves)))
    return " ".join(capsys.readouterr().out.split())

  return main


def check_whole(folder):
  """Whether all twelve cells have a line, and none has two."""
  lines = killed.lines(folder)
  counted = collections.Counter(
    (json.dumps(line["config"], sort_keys=True), line["seed"]) for line in lines
  )
  assert len(counted) == killed.CELLS == 12
  assert set(counted.values()) == {1}
  for line in lines:
    assert len(line["losses"]) == 3
  return lines


@pytest.mark.parametrize(
  ("saves", "count"),
  [pytest.param(False, 1, marks=EXHAUSTIVE), (True, 2)],
)
def test_a_sweep_that_was_killed_goes_on(tmp_path, start_again, saves, count):
  processes = [killed.start(tmp_path, saves=saves) for _ in range(count)]
  try:
    until = time.monotonic() + 120
    while len(before := killed.lines(tmp_path)) < 4:
      assert time.monotonic() < until, (tmp_path / "log").read_text()
      assert any(process.is_alive() for process in processes)
      time.sleep(0.01)
  finally:
    for process in processes:
      process.kill()
      process.join()
  assert {process.exitcode for process in processes} == {-signal.SIGKILL}
  there = len(killed.lines(tmp_path))
  assert len(before) <= there < killed.CELLS  # it was in the middle
  shown = start_again(saves)
  assert f"{there} of 12 lines are in" in shown
  assert "12 lines are in" in shown
  assert "missing" not in shown
  assert check_whole(tmp_path)[: len(before)] == before


def interrupted(monkeypatch, where, count):
  """Lets a KeyboardInterrupt come at the count-th time of something."""
  left = [count]

  def come():
    left[0] -= 1
    if not left[0]:
      raise KeyboardInterrupt

  if where == "in a run":
    fit = loop.fit

    def fit_and_come(*given, progress, **options):
      def seen(step, loss):
        progress(step, loss)
        if step == 1:
          come()

      return fit(*given, progress=seen, **options)

    monkeypatch.setattr(loop, "fit", fit_and_come)
    return
  module, name = {
    "before a cell": (measured, "line"),
    "before a line is noted": (records, "note"),
    "before a line is appended": (records, "append"),
  }[where]
  call = getattr(module, name)

  def come_and_call(*given, **options):
    come()
    return call(*given, **options)

  monkeypatch.setattr(module, name, come_and_call)


@pytest.mark.parametrize(
  ("where", "count", "saves"),
  [
    pytest.param("in a run", 3, False, marks=EXHAUSTIVE),
    ("in a run", 3, True),
    pytest.param("before a cell", 6, False, marks=EXHAUSTIVE),
    pytest.param("before a cell", 6, True, marks=EXHAUSTIVE),
    pytest.param("before a line is noted", 6, True, marks=EXHAUSTIVE),
    pytest.param("before a line is appended", 6, False, marks=EXHAUSTIVE),
    pytest.param("before a line is appended", 6, True, marks=EXHAUSTIVE),
  ],
)
def test_a_sweep_that_was_interrupted_goes_on(
  tmp_path, start_again, monkeypatch, where, count, saves
):
  with monkeypatch.context() as patch:
    interrupted(patch, where, count)
    with pytest.raises(KeyboardInterrupt):
      start_again(saves)
  before = killed.lines(tmp_path)
  there = 4 if where == "in a run" else 5
  assert len(before) == there
  trained = noting_fits(monkeypatch)
  shown = start_again(saves)
  assert f"{there} of 12 lines are in" in shown
  assert check_whole(tmp_path)[:there] == before
  # Of six runs two had ended, and the third had perhaps; two cells share one.
  noted = saves and where == "before a line is appended"
  assert trained == ["gmixout"] * (3 if noted else 4)
  assert "12 of 12 lines are in" in start_again(saves)
  assert len(killed.lines(tmp_path)) == 12
