"""Several commands at once on one results file: each cell is run once."""

import collections
import dataclasses

import pytest

from experiments.harness.cell import Cell
from experiments.harness.run import run
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.wise_ft import WiseFT
from experiments.reporting import records
from gmixout_jax.checkpoint.folders import Held, exclusive
from tests.combinations import every_value
from tests.experiments.harness.small import (
  FULL,
  Small,
  display,
  noting_fits,
  places,
)

WISE = WiseFT(of=FULL)
METHODS = (LinearProbe(), FULL, WISE, FullFinetuning(learning_rate=1.0))


def cells_of(task, compared=METHODS, seeds=(0, 1)):
  return [Cell(task, method, seed) for seed in seeds for method in compared]


@pytest.mark.parametrize(
  ("saves", "order"), every_value([False, True], [1, -1])
)
def test_each_cell_has_one_line(tmp_path, monkeypatch, saves, order):
  """One command runs while another one is in the middle of its first cell."""
  trained = noting_fits(monkeypatch)
  changes = {"checkpoint": tmp_path / "saved"} if saves else {}
  where, theirs = places(tmp_path, **changes), []

  def another():
    if not theirs:
      theirs.append(None)  # not again from within
      cells = cells_of(Small(), METHODS[::order])
      theirs[:] = run(cells, where, display())

  cells = cells_of(Small(meanwhile=another))
  ours = run(cells, where, display())
  lines = records.read(where.results)
  assert len(lines) == len(ours) == len(cells)
  counted = collections.Counter(
    (str(line["config"]), line["seed"]) for line in lines
  )
  assert set(counted.values()) == {1}
  assert {(str(cell.config), cell.seed) for cell in cells} == set(counted)
  if saves:
    # The first cell was held, so theirs are all others, and each ran once.
    assert len(theirs) == len(cells) - 1
    assert cells[0].config not in [
      line["config"] for line in theirs if line["seed"] == 0
    ]
    assert sorted(trained) == ["full_finetuning"] * 4 + ["linear_probe"] * 2
  else:
    # Nothing says who is at what: both have all lines, and they are the same.
    assert len(theirs) == len(cells)


def test_what_another_command_runs_is_left_to_it(tmp_path):
  saved, task = tmp_path / "saved", Small()
  where = places(tmp_path, checkpoint=saved)
  cells = cells_of(task, [LinearProbe()])
  with exclusive(saved / "locks" / cells[0].folder):
    (line,) = run(cells, where, display())
  assert line["seed"] == 1
  assert task.opened == [1]
  assert [x["seed"] for x in run(cells, where, display())] == [0, 1]


@pytest.mark.parametrize("held", [FULL, WISE])
def test_cells_that_share_a_run_are_left_together(tmp_path, held):
  """Two commands may name them in another order, or not all of them."""
  saved = tmp_path / "saved"
  where = places(tmp_path, checkpoint=saved)
  cells = cells_of(Small(), [WISE, LinearProbe(), FULL], seeds=[0])
  with exclusive(saved / "locks" / Cell(Small(), held, 0).folder):
    (line,) = run(cells, where, display())
    assert line["config"] == cells[1].config
  # Nothing is held on to, neither what was run nor what was not.
  for cell in cells:
    with exclusive(saved / "locks" / cell.folder):
      pass
  assert len(run(cells, where, display())) == 3


def test_a_folder_of_one_run_takes_one_command(tmp_path):
  saved = tmp_path / "saved"
  where = places(tmp_path, checkpoint=saved, one=True)
  cells = cells_of(Small(), [LinearProbe()], seeds=[0])
  with (
    exclusive(saved),
    pytest.raises(Held, match="saved is written to by another run"),
  ):
    run(cells, where, display())
  assert len(run(cells, where, display())) == 1


def test_where_nothing_is_saved_nothing_is_held(tmp_path):
  where = places(tmp_path)
  run(cells_of(Small(), [LinearProbe()]), where, display())
  assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]
  fresh = dataclasses.replace(where, results=tmp_path / "new" / "more.jsonl")
  assert len(run(cells_of(Small(), [LinearProbe()]), fresh, display())) == 2
