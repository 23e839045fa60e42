"""Tests `experiments/harness/stage.py`."""

import pathlib

import pytest

from experiments.harness.cell import Cell
from experiments.harness.stage import Stage, through
from experiments.methods.full_finetuning import FullFinetuning
from tests.experiments.harness.small import FULL, Small

CELLS = [Cell(Small(), FULL, seed) for seed in range(4)]


def line(cell):
  return {"config": cell.config, "seed": cell.seed, "metrics": {}}


def working(given, lacking=()):
  """Stands in for what runs cells; notes what it is given."""

  def work(cells, path):
    given.append((list(cells), path))
    return [line(cell) for cell in cells if cell not in lacking]

  return work


def test_later_stages_see_the_lines_of_earlier_ones():
  seen, given = [], []

  def stages():
    seen.append((yield Stage(CELLS[:2])))
    # What comes next depends on what there is.
    rate = seen[0][-1]["config"]["method"]["learning_rate"]
    slower = FullFinetuning(learning_rate=rate / 10)
    seen.append((yield Stage([Cell(Small(), slower, 0)])))

  path = pathlib.Path("some/results.jsonl")
  lines, missing = through(stages(), path, working(given))
  assert [where for _, where in given] == [path, path]
  assert seen[0] == [line(cell) for cell in CELLS[:2]]
  assert lines == {path: seen[0] + seen[1]}
  assert lines[path][2]["config"]["method"]["learning_rate"] == 1e-4
  assert missing == {}


def test_each_file_has_its_own_lines_and_counts_what_it_lacks():
  def stages():
    yield Stage(CELLS[:2], "rates")
    yield Stage(CELLS, "part")
    yield Stage(CELLS[1:3], "rates")  # of which one was asked for before

  folder, given = pathlib.Path("results"), []
  work = working(given, lacking=[CELLS[1], CELLS[2]])
  lines, missing = through(stages(), folder, work)
  rates, part = folder / "rates.jsonl", folder / "part.jsonl"
  assert [path for _, path in given] == [rates, part, rates]
  assert lines == {
    rates: [line(CELLS[0])],
    part: [line(CELLS[0]), line(CELLS[3])],
  }
  assert missing == {rates: 2, part: 2}


def test_equal_cells_are_one():
  twice = [CELLS[0], Cell(Small(), FULL, 0)]
  path = pathlib.Path("results.jsonl")
  lines, missing = through(iter_of(Stage(twice)), path, working([]))
  assert lines == {path: [line(CELLS[0])]}
  assert missing == {}
  lines, missing = through(iter_of(Stage(twice)), path, lambda *_: [])
  assert lines == {path: []}
  assert missing == {path: 1}


def iter_of(stage):
  yield stage


@pytest.mark.parametrize(
  ("name", "results", "message"),
  [
    (None, "results", r"--results must be a file NAME\.jsonl, got results"),
    ("rates", "a.jsonl", r"a folder, .* rates\.jsonl .* got a\.jsonl"),
  ],
)
def test_a_file_is_no_folder(name, results, message):
  given = []
  with pytest.raises(ValueError, match=message):
    through(iter_of(Stage(CELLS, name)), pathlib.Path(results), working(given))
  assert not given


def test_errors_of_the_work_are_the_callers():
  def dying(cells, path):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    through(iter_of(Stage(CELLS)), pathlib.Path("a.jsonl"), dying)
