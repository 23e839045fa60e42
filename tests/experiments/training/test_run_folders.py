"""Tests `experiments/training/run_folders.py`: whose folder it is."""

import json
import os

import jax.numpy as jnp
import pytest

from experiments import sweep, train
from experiments.harness import processes
from experiments.harness.cell import Cell
from experiments.harness.run import run
from experiments.training import run_folders
from gmixout_jax.checkpoint import CheckpointError, Checkpoints
from tests.experiments import tiny
from tests.experiments.harness.small import FULL, Small, display, places


def everything(folder):
  return sorted(
    os.path.join(above, name)
    for above, inner, names in os.walk(folder)
    for name in (*inner, *names)
  )


@pytest.fixture
def photos(tmp_path):
  return tiny.domainbed(tmp_path / "photos", per_class=1) / "art"


@pytest.mark.parametrize("one", [True, False])
def test_a_folder_of_something_else_is_refused_and_not_touched(
  photos, tmp_path, one
):
  steps = tmp_path / "orbax"
  for step in ("0", "100"):
    (steps / step / "default").mkdir(parents=True)
  for folder, held in ((photos, "'cat', 'dog'"), (steps, "'0', '100'")):
    before, task = everything(folder), Small()
    where = places(tmp_path, checkpoint=folder, one=one)
    with pytest.raises(CheckpointError, match=rf"{folder} .* holds {held}"):
      run([Cell(task, FULL, 0)], where, display())
    with pytest.raises(CheckpointError, match=rf"{folder} .* holds {held}"):
      processes.spread(
        [Cell(task, FULL, 0)],
        where,
        display(),
        workers=processes.Workers(1),
        failures=[],
      )
    assert everything(folder) == before
    assert not task.opened


@pytest.mark.parametrize("command", [train, sweep])
def test_commands_find_it_before_anything_is_read(
  photos, tmp_path, monkeypatch, command
):
  monkeypatch.chdir(tmp_path)
  before = everything(photos)
  parsed = command.parse(
    ["gmixout", "--train", str(photos), "--backbone", str(tmp_path / "none"),
     "--checkpoint", str(photos)]
  )  # fmt: skip
  with pytest.raises(SystemExit, match=r"--checkpoint .*photos/art must be"):
    command.main(parsed)
  assert everything(photos) == before


def test_a_folder_of_runs_goes_on_whatever_is_put_there(tmp_path):
  folder = tmp_path / "saved"
  where = places(folder, checkpoint=folder)
  cells = [Cell(Small(), FULL, seed) for seed in (0, 1)]
  run(cells[:1], where, display())
  assert (folder / run_folders.MARK).is_file()
  (folder / "notes.txt").write_text("of mine")
  assert len(run(cells, where, display())) == 2


def test_folders_of_before_the_mark_are_known(tmp_path):
  old = tmp_path / "old"
  for name in ("locks", "jobs", "failed", "gmixout-seed0-0123456789ab"):
    (old / name).mkdir(parents=True)
  (old / "record.json").write_text("{}")
  (old / "lock").touch()
  with Checkpoints(old / "run_00") as saved:
    saved.save(1, {"a": jnp.ones(2)})
  run_folders.check(old)
  run_folders.claim(old)
  assert "by" in json.loads((old / run_folders.MARK).read_text())
  mine = tmp_path / "mine"
  (mine / "run" / "fast").mkdir(parents=True)  # a class of pictures
  with pytest.raises(CheckpointError, match="holds 'run'"):
    run_folders.claim(mine)
  assert os.listdir(mine) == ["run"]


def test_what_the_command_itself_writes_there_is_known(tmp_path):
  (tmp_path / "models" / "a").mkdir(parents=True)
  run_folders.check(tmp_path, [None, tmp_path / "models" / "a"])
  with pytest.raises(CheckpointError, match="'models'"):
    run_folders.check(tmp_path, [None])


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(OSError, match=r"cannot be written to .*file/saved"):
    run_folders.claim(tmp_path / "file" / "saved")
