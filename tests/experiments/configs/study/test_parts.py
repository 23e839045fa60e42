"""Tests `experiments/configs/study/parts.py`."""

import pathlib

import pytest

from experiments import sweep
from experiments.configs.study import parts, plan, scales
from experiments.methods.linear_probe import LinearProbe
from experiments.reporting import records
from experiments.task_options import TaskOptions
from experiments.tasks.digits import Digits
from tests.experiments.harness.small import Small

PACS = ("--root", "PACS", "--backbone", "vit.safetensors")


def study(*options):
  sweep.main(sweep.parse(["--config", "study_cpu", *options]))


def sentences(capsys):
  return " ".join(capsys.readouterr().out.split())


@pytest.fixture
def small(monkeypatch):
  """Tasks that take no time, under the name of what is trained on."""
  tasks = {}

  def on(self, root, backbone, *, source=None, target=None, train_images=None):
    name = f"{source or target} {self.steps} {train_images}"
    return tasks.setdefault(name, Small(name))

  monkeypatch.setattr(scales.Scale, "on", on)
  for name in ("CORE", "BRIEF", "PATIENT"):
    monkeypatch.setattr(plan, name, ("full_finetuning",))
  monkeypatch.setattr(
    plan, "brief", lambda chosen: [LinearProbe(), *chosen.values()]
  )
  return tasks


def test_a_study_chooses_rates_and_then_runs_its_parts(tmp_path, small, capsys):
  study("--cases", "targets", *PACS, "--results", str(tmp_path))
  shown = sentences(capsys)
  assert "missing" not in shown
  assert "3 lines are in" in shown
  assert "10 lines are in" in shown
  rates = records.read(tmp_path / "study_rates_cpu.jsonl")
  assert {record["seed"] for record in rates} == {plan.RATES_SEED}
  assert {record["config"]["data"] for record in rates} == {"cartoon 100 None"}
  accuracy = {
    record["config"]["method"]["learning_rate"]: record["metrics"]["id"]
    for record in rates
  }
  assert len(accuracy) == 3
  lines = records.read(tmp_path / "study_targets_cpu.jsonl")
  assert len(lines) == 2 * len(scales.CPU.seeds)
  for record in lines:
    assert record["config"]["data"] == "sketch 100 None"
    rate = record["config"]["method"].get("learning_rate")
    if rate is not None:
      assert accuracy[rate] == max(accuracy.values())
  # Another part is at the same rates, which are there.
  study("--cases", "sizes", "lengths", *PACS, "--results", str(tmp_path))
  assert "3 of 3 lines are in" in sentences(capsys)
  assert records.read(tmp_path / "study_rates_cpu.jsonl") == rates
  (sizes,) = {
    record["config"]["data"]
    for record in records.read(tmp_path / "study_sizes_cpu.jsonl")
  }
  (lengths,) = {
    record["config"]["data"]
    for record in records.read(tmp_path / "study_lengths_cpu.jsonl")
  }
  assert (sizes, lengths) == ("cartoon 100 200", "cartoon 400 None")
  assert small["cartoon 100 None"].opened == [plan.RATES_SEED]


def test_nothing_follows_while_rates_are_missing(tmp_path, small, capsys):
  options = ("--cases", "targets", *PACS, "--results", str(tmp_path))
  study(*options, "--minutes", "0")
  assert "3 lines are missing in" in sentences(capsys)
  assert not list(tmp_path.iterdir())
  study(*options)
  path = tmp_path / "study_rates_cpu.jsonl"
  path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
  study(*options, "--minutes", "0")
  shown = sentences(capsys)
  assert "1 lines are missing in" in shown
  assert "study_targets" not in shown.partition("1 lines are missing")[2]


def test_seeds_that_are_given_are_taken(tmp_path, small):
  options = ("--cases", "targets", *PACS, "--results", str(tmp_path))
  study(*options, "--seeds", "3")
  seeds = {
    name: {line["seed"] for line in records.read(tmp_path / f"{name}.jsonl")}
    for name in ("study_rates_cpu", "study_targets_cpu")
  }
  assert seeds == {
    "study_rates_cpu": {plan.RATES_SEED},
    "study_targets_cpu": {3},
  }


def stages_of(scale, *cases, **options):
  """The stages of some parts up to the first, whose lines would decide."""
  said = []
  given = TaskOptions(**options)
  stages = parts.Study(scale).stages(given, cases, (), said.append)
  return next(stages, None), said


def test_the_gpu_looks_at_settings_on_pacs_and_at_every_method():
  paths = {
    "root": pathlib.Path("PACS"),
    "backbone": pathlib.Path("vit.safetensors"),
  }
  stage, _ = stages_of(scales.GPU, "rule", **paths)
  assert stage.file == "study_rule_gpu"
  (task,) = {id(cell.task): cell.task for cell in stage.cells}.values()
  assert task.config["data"]["source"] == "art_painting"
  assert task.config["data"]["image_size"] == 160
  stage, _ = stages_of(scales.CPU, "rule")
  assert {cell.task for cell in stage.cells} == {Digits()}
  assert len(stage.cells) == 5 * len(plan.VARIANTS)
  for scale, names in ((scales.CPU, plan.BRIEF), (scales.GPU, plan.CORE)):
    stage, _ = stages_of(scale, "untrained")
    assert len(stage.cells) == 3 * len(names)


def test_words_need_a_clip(tmp_path):
  file = tmp_path / "vit.safetensors"
  stage, said = stages_of(scales.CPU, "words", root=tmp_path, backbone=file)
  assert stage is None
  assert said == [
    "the part words starts from a CLIP: give --cases words --backbone FOLDER"
    f" for it; got {file}."
  ]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (("--cases", "source"), "--cases must name some of sources, .* 'source'"),
    (("--cases", "sources"), "--root must name PACS .* got None and None"),
    (("--set", "gmixout.sparsity=0.5"), "settings of its own.*sparsity=0.5"),
    (("gmixout",), "methods and settings of its own, got gmixout"),
    (("--picture", "a.png"), r"writes several files.* not --picture a\.png"),
    (("--results", "a.jsonl", "--cases", "digits"), "must be a folder"),
  ],
)
def test_what_a_study_does_not_do_is_said(tmp_path, options, message):
  where = () if "--results" in options else ("--results", str(tmp_path))
  with pytest.raises(SystemExit, match=rf"error: .*{message}"):
    study(*options, *where, "--minutes", "0")


def test_a_study_without_its_data_says_what_is_missing(tmp_path, vit_file):
  given = ("--root", str(tmp_path / "none"), "--backbone", str(vit_file))
  with pytest.raises(SystemExit, match=r"error: no folder .*none"):
    study("--cases", "sources", *given, "--results", str(tmp_path))
  with pytest.raises(SystemExit, match=r"error: no weights at nothing"):
    study(
      *("--cases", "sources", "--root", str(tmp_path)),
      *("--backbone", "nothing", "--results", str(tmp_path)),
    )
