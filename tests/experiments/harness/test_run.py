"""Tests `experiments/harness/run.py`: what is run, resumed and refused."""

import json
import time

import pytest

from experiments.harness import measured
from experiments.harness.cell import Cell
from experiments.harness.run import Failure, lines_of, run
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.output_ensemble import OutputEnsemble
from experiments.methods.wise_ft import WiseFT
from experiments.models import export
from experiments.reporting import records
from experiments.training import train_step
from experiments.training.run_checkpoints import Stopped
from tests.experiments import tiny
from tests.experiments.harness.small import (
  FULL,
  Small,
  display,
  noting_fits,
  places,
)

WISE = WiseFT(of=FULL)


def cells_of(task, *compared, seeds=(0,)):
  return [Cell(task, method, seed) for seed in seeds for method in compared]


def run_all(cells, where):
  return run(cells, where, display())


def test_missing_cells_run_once_and_lines_are_those_of_the_cells(tmp_path):
  task, where = Small(), places(tmp_path)
  cells = cells_of(task, LinearProbe(), FULL, WISE, seeds=(0, 1))
  assert len(run_all([*cells[:2], cells[0]], where)) == 2
  assert len(records.read(where.results)) == 2
  assert task.opened == [0]
  lines = run_all(cells, where)
  assert lines == records.read(where.results)
  assert [(x["config"], x["seed"]) for x in lines] == [
    (cell.config, cell.seed) for cell in cells
  ]
  for line in lines:
    assert sorted(line["metrics"]["ood"]) == ["away"]
  assert run_all(cells, where) == lines
  assert records.read(where.results) == lines
  assert task.opened == [0, 0, 1]  # the last time not at all


@pytest.mark.parametrize("there", [(), (FULL,), (WISE,)])
def test_methods_that_share_a_run_train_it_once(tmp_path, monkeypatch, there):
  """Also where some of their lines are there already."""
  cells, where = cells_of(Small(), WISE, LinearProbe(), FULL), places(tmp_path)
  run_all([cell for cell in cells if cell.method in there], where)
  trained = noting_fits(monkeypatch)
  run_all(cells, where)
  assert sorted(trained) == ["full_finetuning", "linear_probe"]
  assert len(records.read(where.results)) == 3


def test_choices_are_made_on_validation_images_alone(tmp_path):
  test = tiny.split(seed=7)
  task = Small(changes={"test": test})
  (line,) = run_all(cells_of(task, LinearProbe()), places(tmp_path))
  details = line["metrics"]["details"]
  counted = {k: sum(v["reliability"]["count"]) for k, v in details.items()}
  validation = tiny.source().validation
  assert counted["validation"] == len(validation)
  assert counted["id"] == len(test) != len(validation)
  # Where there is no such test, the line tells nothing of another one.
  (line,) = run_all(cells_of(Small("b"), LinearProbe()), places(tmp_path))
  assert sorted(line["metrics"]["details"]) == ["id", "ood/away"]


def test_no_cell_is_begun_after_the_deadline(tmp_path):
  cells = cells_of(Small(), LinearProbe(), seeds=(0, 1))
  late = places(tmp_path, deadline=time.monotonic() - 1)
  assert run_all(cells, late) == []
  assert not late.results.exists()
  first = run_all(cells[:1], places(tmp_path))
  assert run_all(cells, late) == first  # what is there is told all the same


def test_lines_of_another_kind_are_passed_over(tmp_path):
  where, (cell,) = places(tmp_path), cells_of(Small(), FULL)
  others = [
    {},
    {"config": "small", "metrics": {}},
    {"config": {"data": "small"}, "seed": 0},
    {"config": cell.config, "seed": 0},  # of no metrics: a benchmark's
    {"config": cell.config, "seed": 1, "metrics": {}},
    {"config": cell.config | {"steps": 3}, "seed": 0, "metrics": {}},
  ]
  for other in others:
    records.append(where.results, other)
  assert lines_of(where.results, [cell]) == {}
  (line,) = run_all([cell], where)
  assert records.read(where.results) == [*others, line]
  newer = line | {"metrics": line["metrics"] | {"id": 0.25}}
  records.append(where.results, newer)
  assert run_all([cell], where) == [newer]  # of several the last counts


@pytest.mark.parametrize("garbled", ['{"config": {"da', "[1]", "no"])
def test_a_garbled_results_file_is_refused(tmp_path, garbled):
  where, task = places(tmp_path), Small()
  where.results.write_text(f"{{}}\n{garbled}\n")
  before = where.results.read_text()
  with pytest.raises(ValueError, match=r"results\.jsonl:2: "):
    run_all(cells_of(task, FULL), where)
  assert where.results.read_text() == before
  assert not task.opened


def test_a_noted_line_is_appended_on_resume(tmp_path, monkeypatch):
  """As after a kill between the two, with the cell's folder or the run's."""
  cells = cells_of(Small(), FULL, WISE)
  for one in (False, True):
    folder = tmp_path / str(one)
    where = places(folder, checkpoint=folder / "saved", one=one)
    (cell,) = cells[:1]

    def die(*args):
      raise KeyboardInterrupt

    with monkeypatch.context() as patch:
      patch.setattr(records, "append", die)
      with pytest.raises(KeyboardInterrupt):
        run_all([cell], where)
    assert records.read(where.results) == []
    with monkeypatch.context() as patch:
      patch.setattr(measured, "line", lambda *_: pytest.fail("run again"))
      (line,) = run_all([cell], where)
    assert records.read(where.results) == [line]
    assert records.recall(where.of_cell(cell)) == line
    (again,) = run_all([cell], where)
    assert records.read(where.results) == [line] == [again]


def test_a_folder_of_one_run_is_of_one_configuration(tmp_path):
  saved = tmp_path / "saved"
  run_all(cells_of(Small(), FULL), places(tmp_path, checkpoint=saved, one=True))
  fresh = places(tmp_path / "new", checkpoint=saved, one=True)
  other = FullFinetuning(learning_rate=0.5)
  for cells, message in (
    (cells_of(Small(), other), r"saved holds .* method is .*0\.001.*0\.5"),
    (cells_of(Small(), FULL, seeds=[1]), "seed is 0 there and 1 here"),
    (cells_of(Small("b"), FULL), "data is 'small' there and 'b' here"),
  ):
    with pytest.raises(ValueError, match=message):
      run_all(cells, fresh)
  assert not fresh.results.exists()
  assert len(run_all(cells_of(Small(), FULL), fresh)) == 1
  # Of several cells each has a folder of its own there, and none is refused.
  several = places(tmp_path / "more", checkpoint=saved)
  assert len(run_all(cells_of(Small(), other, FULL), several)) == 2


@pytest.mark.parametrize("saves", [False, True])
def test_a_missing_export_is_written_on_resume(tmp_path, monkeypatch, saves):
  exported = []
  monkeypatch.setattr(
    export, "save", lambda model, path, **what: exported.append(path)
  )
  monkeypatch.setattr(export, "note", lambda path, what: None)
  monkeypatch.setattr(export, "is_of", lambda path, what: path in exported)
  ensemble = OutputEnsemble(of=FULL, runs=2)
  cells = cells_of(Small(), FULL, ensemble)
  changes = {"checkpoint": tmp_path / "saved"} if saves else {}
  lines = run_all(cells, places(tmp_path, **changes))
  trained = noting_fits(monkeypatch)
  if saves:  # what is saved need but be finished
    monkeypatch.setattr(
      train_step.Shared, "__call__", lambda *_: pytest.fail("trained")
    )
  where = places(tmp_path, export=tmp_path / "models", **changes)
  for _ in range(2):  # the second time nothing is left to do
    again = run_all(cells, where)
    # An ensemble has no file of its own, so there is nothing to make of it.
    assert exported == [tmp_path / "models" / cells[0].folder]
    assert trained == ["full_finetuning"]
  assert [x["metrics"] for x in again] == [x["metrics"] for x in lines]
  assert records.read(where.results) == lines


def test_a_cell_that_fails_stops_no_other(tmp_path, monkeypatch):
  line, failing = measured.line, WISE

  def breaking(cell, *rest):
    if cell.method == failing:
      raise ArithmeticError("no number")
    return line(cell, *rest)

  monkeypatch.setattr(measured, "line", breaking)
  cells = cells_of(Small(), WISE, FULL, LinearProbe(), seeds=(0, 1))
  where, failures = places(tmp_path), []
  lines = run(cells, where, display(), failures=failures)
  assert records.read(where.results) == lines
  assert len(lines) == 4
  assert [failure.title for failure in failures] == [
    "WiSE-FT, seed 0",
    "WiSE-FT, seed 1",
  ]
  for failure, cell in zip(failures, (cells[0], cells[3]), strict=True):
    assert isinstance(failure, Failure)
    assert failure.log == tmp_path / "failed" / f"{cell.folder}.log"
    assert failure.log.read_text().endswith("ArithmeticError: no number\n")
  with pytest.raises(
    ArithmeticError
  ):  # where nobody asked to be told at the end
    run_all(cells, where)
  failing = None  # what failed is run again
  assert len(run(cells, where, display(), failures=failures)) == 6
  assert len(failures) == 2


def test_a_task_that_cannot_be_opened_stops_no_other(tmp_path):
  def nothing_there():
    raise ValueError("no images there")

  missing = Small("missing", meanwhile=nothing_there)
  cells = [
    *cells_of(missing, FULL, LinearProbe(), seeds=(0, 1)),
    *cells_of(Small(), FULL),
  ]
  where, failures = places(tmp_path), []
  (line,) = run(cells, where, display(), failures=failures)
  assert line["config"]["data"] == "small"
  assert missing.opened == [0, 1]  # and not again for every method
  assert len(failures) == 4
  for failure in failures:
    assert failure.log.read_text().endswith("ValueError: no images there\n")
  with pytest.raises(ValueError, match="no images there"):  # the only task
    run(cells[:4], where, display(), failures=[])


def test_a_run_that_is_asked_to_stop_has_not_failed(tmp_path):
  where = places(
    tmp_path, checkpoint=tmp_path / "saved", stop=lambda step: step == 1
  )
  failures = []
  with pytest.raises(Stopped, match="after 1 of 2 steps"):
    run(cells_of(Small(), FULL), where, display(), failures=failures)
  assert not failures
  (line,) = run_all(
    cells_of(Small(), FULL), places(tmp_path, checkpoint=where.checkpoint)
  )
  assert len(line["losses"]) == 2
  assert json.loads(where.results.read_text()) == line
