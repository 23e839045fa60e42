"""Tests `experiments/configs/study/parts.py`."""

import pathlib

import pytest

from experiments import sweep
from experiments.configs.study import parts, plan, scales
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.wise_ft import WiseFT
from experiments.reporting import records
from experiments.task_options import TaskOptions
from experiments.tasks.digits import Digits
from tests.combinations import EXHAUSTIVE
from tests.experiments.harness.small import Small

RESULTS = pathlib.Path(parts.__file__).parents[2] / "results"

PACS = ("--root", "PACS", "--backbone", "vit.safetensors")


def study(*options):
  sweep.main(sweep.parse(["--config", "study_cpu", *options]))


def sentences(capsys):
  return " ".join(capsys.readouterr().out.split())


NAMES = ("full_finetuning", "gmixout_neurons")
SEEDS = ("--seeds", "0", "1")  # of five, which would take longer


@pytest.fixture
def small(monkeypatch):
  """Tasks that take no time, under the name of what is trained on."""
  tasks = {}

  def on(self, root, backbone, *, source=None, target=None):
    name = f"{source or target} {self.steps}"
    return tasks.setdefault(name, Small(name))

  monkeypatch.setattr(scales.Scale, "on", on)
  monkeypatch.setattr(parts, "VIT", parts.VIT[-2:])  # of three
  for name in ("COMPARED", "CORE"):
    monkeypatch.setattr(plan, name, NAMES)
  monkeypatch.setattr(
    plan,
    "of_three",
    lambda chosen: [LinearProbe(), WiseFT(of=chosen[NAMES[0]])],
  )
  return tasks


def lines_in(folder, name):
  return records.read(folder / f"curves_{name}_cpu.jsonl")


def rates(lines, name="full_finetuning"):
  """By seed, ascending."""
  found = {}
  for line in lines:
    if line["config"]["method"]["name"] == name:
      rate = line["config"]["method"]["learning_rate"]
      found.setdefault(line["seed"], []).append(rate)
  return {seed: sorted(each) for seed, each in found.items()}


def test_every_rate_runs_with_every_seed_and_then_what_is_made_of_the_chosen(
  tmp_path, small, capsys
):
  study("--cases", "short", *PACS, *SEEDS, "--results", str(tmp_path))
  shown = sentences(capsys)
  assert "missing" not in shown
  lines = lines_in(tmp_path, "short")
  found = rates(lines)
  assert set(found) == {0, 1}
  assert len({tuple(each) for each in found.values()}) == 1
  # All rates are as good here: the smallest is chosen, and the grid grows.
  ran = found[0]
  assert len(ran) == len(parts.VIT) + parts.GROWN
  assert set(parts.VIT) < set(ran)
  assert "still at the edge of their grids: Full fine-tuning" in shown
  (of,) = {
    line["config"]["method"]["of"]["learning_rate"]
    for line in lines
    if line["config"]["method"]["name"] == "wise_ft"
  }
  assert of == ran[0]
  # Another time nothing is left.
  study("--cases", "short", *PACS, *SEEDS, "--results", str(tmp_path))
  assert lines_in(tmp_path, "short") == lines


@EXHAUSTIVE  # which cells, in `test_plan.py`
def test_as_much_work_is_more_steps_at_the_rate_and_its_neighbours(
  tmp_path, small
):
  study("--cases", "equal_work", *PACS, *SEEDS, "--results", str(tmp_path))
  lines = lines_in(tmp_path, "equal_work")
  by_task = {}
  for line in lines:
    by_task.setdefault(line["config"]["data"], []).append(line)
  assert set(by_task) == {"cartoon 143", "cartoon 572"}
  for name, part in (("cartoon 143", "short"), ("cartoon 572", "long")):
    found = rates(by_task[name], "gmixout")
    assert set(found) == {0, 1}
    chosen = min(rates(lines_in(tmp_path, part), "gmixout")[0])
    assert found[0][1] == pytest.approx(chosen)
    assert found[0][0] == pytest.approx(chosen / 3, rel=0.05)
    assert found[0][2] == pytest.approx(chosen * 3, rel=0.05)
    for line in by_task[name]:
      assert line["config"]["method"]["sampler"] == "neuron"
      assert line["config"]["method"]["rescale"] is False


def test_nothing_follows_while_runs_are_missing(tmp_path, small, capsys):
  options = ("--cases", "short", *PACS, *SEEDS, "--results", str(tmp_path))
  study(*options, "--minutes", "0")
  assert "lines are missing in" in sentences(capsys)
  assert not list(tmp_path.iterdir())
  study(*options)
  path = tmp_path / "curves_short_cpu.jsonl"
  whole = path.read_text().splitlines(keepends=True)
  path.write_text("".join(whole[:7]))
  capsys.readouterr()
  study(*options, "--minutes", "0")
  assert "lines are missing in" in sentences(capsys)
  assert "wise_ft" not in path.read_text()


def test_seeds_that_are_given_are_taken(tmp_path, small):
  options = ("--cases", "long", *PACS, "--results", str(tmp_path))
  study(*options, "--seeds", "3")
  assert {line["seed"] for line in lines_in(tmp_path, "long")} == {3}
  assert {line["config"]["data"] for line in lines_in(tmp_path, "long")} == {
    "cartoon 400"
  }


def stages_of(scale, *cases, **options):
  """The stages of some parts up to the first, whose lines would decide."""
  said = []
  given = TaskOptions(**options)
  stages = parts.Study(scale).stages(given, cases, (), said.append)
  return next(stages, None), said


def test_make_rivals_reports_the_file_that_it_has_made():
  stage, _ = stages_of(scales.CPU, "digits")
  makefile = pathlib.Path(__file__).parents[4] / "Makefile"
  assert f"runs/rivals/{stage.file}.jsonl" in makefile.read_text()


def test_the_bound_is_looked_at_on_the_digits():
  stage, _ = stages_of(scales.CPU, "bound")
  assert stage.file == "curves_digits_cpu"
  assert {type(cell.task) for cell in stage.cells} == {Digits}
  assert len(stage.cells) == 3 * len(parts.CLIP) * len(scales.CPU.seeds)


@pytest.mark.parametrize("part", parts.OF_SETTINGS)
def test_lines_along_settings_have_files_of_their_own(part):
  stages = parts.Study(scales.CPU).stages(TaskOptions(), (part,), (), print)
  stage = next(stages)
  while stage.file == "curves_digits_cpu":  # until no grid has to grow
    stage = stages.send(records.read(RESULTS / "curves_digits_cpu.jsonl"))
  assert stage.file == f"settings_{part}_cpu"


def test_a_gpu_has_larger_images_and_all_sources():
  paths = {
    "root": pathlib.Path("PACS"),
    "backbone": pathlib.Path("vit.safetensors"),
  }
  stage, _ = stages_of(scales.GPU, "short", **paths)
  assert stage.file == "curves_short_gpu"
  (task,) = {id(cell.task): cell.task for cell in stage.cells}.values()
  assert task.config["data"]["source"] == "cartoon"
  assert task.config["data"]["image_size"] == 160
  assert set(scales.GPU.sources) == set(scales.DOMAINS)


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
    (("--cases", "source"), "--cases must name some of digits, .* 'source'"),
    (("--cases", "sources"), "--root must name PACS .* got None and None"),
    (("--set", "gmixout.sparsity=0.5"), "settings of its own.*sparsity=0.5"),
    (("gmixout",), "methods and settings of its own, got gmixout"),
    (("--picture", "a.png"), r"writes several files, got --picture a\.png"),
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
