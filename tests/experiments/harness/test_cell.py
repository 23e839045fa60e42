"""Tests `experiments/harness/cell.py`."""

import dataclasses
import pathlib
import re

import pytest

from experiments import methods
from experiments.configs.study import scales
from experiments.harness.cell import Cell, by_task_and_seed, sharing_runs
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.model_soups import UniformSoup
from experiments.methods.wise_ft import WiseFT
from experiments.reporting import records
from experiments.reporting.identity import folder_name, identity_of
from experiments.tasks.domains import Domains
from experiments.tasks.image_task import ImageTask, Setup
from gmixout_jax import clip
from tests.experiments.harness.small import FULL, Small

WEIGHTS = "vit_tiny_patch16_224.safetensors"


@pytest.mark.parametrize(
  "cells",
  [
    [Cell(Small(name), FULL, 0) for name in ("数字", "цифры", "ψηφία", "")],
    [Cell(Small(name), FULL, 0) for name in ("PACS", "pacs", "Pacs", "pacs ")],
    [
      Cell(Small(name), FULL, 0) for name in ("a/b", "a_b", "a-b", "a\\b", "..")
    ],
    [Cell(Small(300 * "x" + end), FULL, 0) for end in "ab"],
    [Cell(Small(), GMixout(sparsity=p), 0) for p in (0.5, 0.9, 0.95)],
    [Cell(Small(), WiseFT(of=of), 0) for of in (FULL, FullFinetuning())],
    [Cell(Small(), FULL, seed) for seed in (0, 1, 11, -1)],
    [Cell(Small(), FULL, 0, ending) for ending in ({}, {"patience": 3})],
  ],
  ids=["scripts", "cases", "signs", "long", "settings", "of", "seeds", "ends"],
)
def test_no_two_cells_share_a_folder(cells):
  # Not even where upper and lower case are the same.
  assert len({cell.folder.lower() for cell in cells}) == len(cells)
  assert len({cell.identity for cell in cells}) == len(cells)
  for cell in cells:
    assert re.fullmatch(r"[a-z0-9][a-z0-9_+-]{,99}", cell.folder)
    name = methods.name_of(cell.method)
    assert cell.folder.startswith(f"{name}-seed{cell.seed}-")


@pytest.mark.parametrize(
  "readable", ["数字", "", 400 * "ж", 400 * "x", "a/../b", " . ", "CON", "-x-"]
)
def test_a_folder_has_a_name_that_every_file_system_takes(readable, tmp_path):
  name, other = folder_name(readable, "one"), folder_name(readable, "two")
  assert name.lower() != other.lower()
  (tmp_path / name).mkdir()
  assert [path.name for path in tmp_path.iterdir()] == [name]
  assert name == name.lower() == folder_name(readable, "one")
  assert len(name.encode()) < 100
  # What people can read of it stays.
  assert folder_name("PACS, Größe/10%", "one").startswith("pacs-gr-e-10-")


def test_an_equal_cell_is_the_same_whoever_makes_it():
  one, other = Cell(Small(), FULL, 0), Cell(Small(), FULL, 0)
  assert one.identity == other.identity
  assert one.folder == other.folder
  # Settings that no weights depend on tell no two cells apart.
  packed, dense = (Cell(Small(), GMixout(compact=c), 0) for c in (True, False))
  assert packed.identity == dense.identity
  backwards = dict(reversed(one.config.items()))
  assert identity_of(backwards, 0) == one.identity


def task(**changes):
  """PACS as the study trains on it, but as evaluation sees it, as ever."""
  root = pathlib.Path("data/PACS")
  backbone = pathlib.Path("weights") / WEIGHTS
  found = scales.CPU.on(root, backbone, source="cartoon")
  return dataclasses.replace(
    found,
    setup=dataclasses.replace(found.setup, **{"augment": "none"} | changes),
  )


# What the study of 0.1.0 wrote of `task()`, and what its `train` wrote.
STUDY = {
  "method": {"name": "linear_probe"},
  "data": {
    "root": "PACS",
    "source": "cartoon",
    "image_size": 64,
    "batch_size": 32,
    "held_out": 0.2,
    "per_domain": 600,
  },
  "weights": WEIGHTS,
  "steps": 100,
  "augment": "none",
}
TRAIN = STUDY | {
  "mean": [0.5, 0.5, 0.5],
  "std": [0.5, 0.5, 0.5],
  "remat": False,
  "warmup": 0.1,
  "skip_nonfinite": 0,
}


@pytest.mark.parametrize("line", [STUDY, TRAIN], ids=["study", "train"])
def test_older_lines_match_the_same_cell(line):
  cell = Cell(task(), LinearProbe(), 3)
  assert records.comparable(cell.config) == STUDY
  assert identity_of(line, 3) == cell.identity
  assert identity_of(line, 4) != cell.identity
  for name, value in (
    ("warmup", 0.0),
    ("remat", True),
    ("mean", (0.4, 0.5, 0.5)),
    ("dtype", "bfloat16"),
    ("steps", 101),
  ):
    other = Cell(task(**{name: value}), LinearProbe(), 3)
    assert other.identity != cell.identity
    told = identity_of(line | {name: records.plain(value)}, 3)
    assert other.identity == told


def test_lines_with_crops_of_squares_match_no_cell():
  basic = Cell(task(augment="basic"), LinearProbe(), 3)
  assert basic.config["crops"] == "original"
  squares = {k: v for k, v in STUDY.items() if k != "augment"}
  for line in (squares, squares | {"augment": "basic"}):
    assert identity_of(line, 3) != basic.identity
    assert identity_of(line | {"crops": "original"}, 3) == basic.identity


def test_balanced_batches_are_part_of_the_identity():
  def cell(*, balanced):
    images = Domains(
      root=pathlib.Path("PACS"),
      target="photo",
      balanced=balanced,
      per_domain=600,
      fingerprint=False,
    )
    setup = Setup(
      backbone=pathlib.Path(WEIGHTS),
      mean=clip.HALF,
      std=clip.HALF,
      image_size=64,
      steps=100,
      augment="none",
      fingerprint=False,
    )
    return Cell(ImageTask(images, setup), LinearProbe(), 0)

  data = {k: v for k, v in STUDY["data"].items() if k != "source"}
  left_out = {"data": data | {"target": "photo"}}
  by_study = identity_of(STUDY | left_out, 0)
  by_train = identity_of(TRAIN | left_out, 0)
  assert by_study == cell(balanced=False).identity
  assert by_train == cell(balanced=True).identity
  assert by_study != by_train


def test_cells_with_runs_in_common_are_run_together():
  soup = UniformSoup(of=FULL, runs=2, factors=(1.0,))
  listed = [LinearProbe(), FULL, FullFinetuning(learning_rate=1.0), soup]
  task = Small()
  groups = sharing_runs([Cell(task, method, 0) for method in listed])
  assert [[cell.method for cell in group] for group in groups] == [
    [LinearProbe()],
    [FULL, soup],
    [FullFinetuning(learning_rate=1.0)],
  ]


def test_cells_may_be_tied_by_a_third():
  """Even if that comes last: what it shares with each is trained once."""
  quarter = FullFinetuning(learning_rate=0.25)
  half = FullFinetuning(learning_rate=0.5)
  other = UniformSoup(of=half, runs=2, factors=(1.0, 2.0))
  both = UniformSoup(of=quarter, runs=2, factors=(1.0, 4.0))
  assert not set(quarter.members()) & set(other.members())
  task = Small()
  cells = [Cell(task, method, 0) for method in (quarter, other, half, both)]
  (group,) = sharing_runs(cells)
  assert set(group) == set(cells)


def test_a_task_is_opened_once_for_the_cells_of_a_seed():
  one, other = Small(), Small("other")
  cells = [Cell(t, FULL, s) for s in (0, 1) for t in (one, other, one)]
  groups = by_task_and_seed(cells)
  assert [[cells.index(cell) for cell in group] for group in groups] == [
    *([0, 2], [1], [3, 5], [4]),
  ]
