"""Tests `experiments/sweep.py`."""

import pathlib

import pytest

from experiments import sweep, train
from experiments.reporting import records
from experiments.task_options import TaskOptions
from experiments.tasks.recipe import Recipe
from experiments.training import metrics_log
from experiments.training.watching import Watching
from tests.combinations import EXHAUSTIVE, tried
from tests.experiments import tiny
from tests.experiments.harness.small import Small

SMALL = ("--steps", "3", "--batch-size", "4")


def config(*names, **changes):
  return sweep.Config(methods=names, **changes)


def test_flags_are_read(tmp_path):
  parsed = sweep.parse(
    [
      *("gmixout", "swa", "--set", "gmixout.sparsity=0.5,0.9", "swa.every=2"),
      *("--seeds", "3", "4", "--ood", "a=b", "--ood", "c=d", "--epochs", "2"),
    ]
  )
  assert parsed.methods == ("gmixout", "swa")
  assert parsed.set == ("gmixout.sparsity=0.5,0.9", "swa.every=2")
  assert (parsed.seeds, parsed.epochs) == ((3, 4), 2.0)
  assert parsed.ood == ("a=b", "c=d")
  with pytest.raises(TypeError, match="positional"):
    sweep.Config(("gmixout",))
  with pytest.raises(ValueError, match="steps=2 and epochs=3"):
    config("gmixout", steps=2, epochs=3)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"cases": ("real",)}, "--cases and --checkpoints belong to a --config"),
    ({"config": "imagnet"}, "one of cifar100_c, .*; got 'imagnet'"),
    ({"workers": 2}, "workers .* got 2 and --checkpoint None"),
    ({"workers": -1}, "workers must be 0, .* got -1"),
    ({"cluster": "slurm"}, "--cluster slurm needs --workers"),
    (
      {"config": "demo", "cases": ("digits",)},
      "--cases has no meaning for demo, .* got digits",
    ),
    (
      {"config": "demo", "image_size": 28},
      "--image-size has no meaning here, got 28: .*, those of a train step can",
    ),
    (
      {"config": "study_cpu", "methods": (), "training": Recipe(mixup=0.2)},
      "--mixup has no meaning here, got 0.2: .* only --root, --backbone can be",
    ),
    (
      {
        "config": "study_cpu",
        "methods": (),
        "watching": Watching(eval_every=1, patience=2),
      },
      "--config study_cpu compares runs of one length, got --patience 2",
    ),
    (
      {
        "config": "study_cpu",
        "methods": (),
        "checkpoints": pathlib.Path("models"),
      },
      "--checkpoints has no meaning for study_cpu, which trains; got models",
    ),
    ({"save_every": 50}, "--save-every 50 needs --checkpoint"),
    (
      {"picture": pathlib.Path("runs/x.jsonl")},
      r"--picture must be a file whose name ends in \..*, .*got runs/x.jsonl",
    ),
    ({"picture": pathlib.Path("runs")}, "--picture must be .* got runs"),
    (
      {"results": pathlib.Path("runs/x")},
      r"--results must be a file NAME\.jsonl, got runs/x",
    ),
  ],
)
def test_flags_that_make_no_sense_are_refused(changes, message, monkeypatch):
  tiny.use_tiny_task(monkeypatch)
  names = changes.pop("methods", ("swa",))
  with pytest.raises(SystemExit, match=f"error: .*{message}"):
    sweep.main(config(*names, **changes))


def test_the_seed_is_0_where_nobody_says_another(monkeypatch):
  tiny.use_tiny_task(monkeypatch)

  def seeds(**changes):
    (stage,) = sweep.stages_of(config("swa", "ema", **changes), None)
    return [cell.seed for cell in stage.cells]

  assert seeds() == [0, 0]
  assert seeds(seeds=(2, 1)) == [2, 2, 1, 1]
  assert set(seeds(config="demo")) == {0, 1, 2}


def test_a_sweep_is_what_train_would_have_written(
  monkeypatch, tmp_path, capsys
):
  tiny.use_tiny_task(monkeypatch)
  path = tmp_path / "results.jsonl"
  names = ("gmixout", "uniform_soup")
  settings = ("uniform_soup.runs=2", "gmixout.anchor_decay=0")
  options = (*SMALL, "--results", str(path))
  arguments = [*names, "--set", *settings, "--seeds", "0", "1", *options]
  picture = tmp_path / "pictures" / "ood.png"
  sweep.main(sweep.parse([*arguments, "--picture", str(picture)]))
  lines = records.read(path)
  assert [(x["config"]["method"]["name"], x["seed"]) for x in lines] == [
    (name, seed) for seed in (0, 1) for name in names
  ]
  shown = " ".join(capsys.readouterr().out.split())
  assert "Uniform soup" in shown
  assert "forward passes per image" in shown
  assert f"4 lines are in {path}. The picture is {picture}." in shown
  assert picture.stat().st_size > 10_000
  # To `train` they are there already, and to it alone they are the same.
  single = ("gmixout", "--anchor-decay", "0", "--seed", "1")
  train.main(train.parse([*single, *options]))
  assert records.read(path) == lines
  alone = ("--results", str(tmp_path / "alone.jsonl"))
  train.main(train.parse([*single, *SMALL, *alone]))
  (line,) = records.read(tmp_path / "alone.jsonl")
  for key in ("config", "seed", "losses", "metrics"):
    assert line[key] == lines[2][key]
  soup = lines[3]
  assert soup["stats"]["runs"] == 2
  assert len(soup["losses"]) == 6


def test_without_ood_images_there_is_no_picture(monkeypatch, tmp_path):
  task = Small(changes={"ood": {}})
  monkeypatch.setattr(TaskOptions, "task", lambda self: task)
  given = ["linear_probe", "--results", str(tmp_path / "results.jsonl")]
  sweep.main(sweep.parse(given))
  picture = str(tmp_path / "a.png")
  with pytest.raises(SystemExit, match=r"out of distribution, .*a\.png"):
    sweep.main(sweep.parse([*given, "--picture", picture]))


def test_one_rate_a_method_is_shown_and_all_have_their_lines(
  monkeypatch, tmp_path, capsys
):
  monkeypatch.setattr(TaskOptions, "task", lambda self: Small())
  rates = "full_finetuning.learning_rate=1e-5,1e-4,1e-3"
  given = ["full_finetuning", "linear_probe", "--set", rates]
  given += ["--results", str(tmp_path / "results.jsonl")]
  sweep.main(sweep.parse([*given, "--choose"]))
  lines = records.read(tmp_path / "results.jsonl")
  assert len(lines) == 4
  shown = " ".join(capsys.readouterr().out.split())
  # Nothing moves in two steps, so the most cautious will do.
  assert "lr 1e-05 is chosen of 1e-05, 0.0001, 0.001." in shown
  assert "try smaller ones" in shown
  assert shown.count("Full fine-tuning") < 6
  sweep.main(sweep.parse(given))
  assert "is chosen" not in capsys.readouterr().out


def test_cells_share_the_recipe_and_log_apart(monkeypatch, tmp_path):
  tiny.use_tiny_task(monkeypatch)
  given = config(
    "full_finetuning",
    "uniform_soup",
    set=("uniform_soup.runs=2",),
    batch_size=8,
    epochs=1,
    seeds=(3, 4),
    results=tmp_path / "results.jsonl",
    training=Recipe(label_smoothing=0.2),
    watching=Watching(log_dir=tmp_path / "log"),
  )
  sweep.main(given)
  lines = records.read(given.results)
  assert [line["config"]["label_smoothing"] for line in lines] == [0.2] * 4
  logged = sorted(
    [round(line["loss"], 5) for line in metrics_log.read(path)]
    for path in (tmp_path / "log").glob("*/*/metrics.jsonl")
  )
  # Of each seed two runs, of which the soup shares the first.
  assert logged == sorted(
    losses
    for line in lines[1::2]
    for losses in (line["losses"][:3], line["losses"][3:])
  )
  assert lines[0]["losses"] == lines[1]["losses"][:3]
  assert len({path.name for path in (tmp_path / "log").iterdir()}) == 2


def test_every_model_is_exported_and_read_again(tmp_path, pacs, vit_file):
  """With a ViT, whose file each cell has; and none is made again."""
  given = config(
    "linear_probe",
    seeds=(0, 1),
    data="pacs",
    root=pacs,
    source="photo",
    backbone=vit_file,
    results=tmp_path / "results.jsonl",
    export=tmp_path / "models",
  )
  sweep.main(given)
  files = sorted((tmp_path / "models").glob("*.safetensors"))
  assert len(files) == 2
  assert len(list((tmp_path / "models").iterdir())) == 4  # and what they are
  made = [file.stat().st_mtime_ns for file in files]
  sweep.main(given)
  assert [file.stat().st_mtime_ns for file in files] == made
  files[0].unlink()
  sweep.main(given)
  assert files[0].is_file()
  assert len(records.read(given.results)) == 2


@EXHAUSTIVE  # without processes, in `harness/test_run.py`
@pytest.mark.parametrize("workers", tried([0, 2], lambda workers: workers == 0))
def test_a_cell_that_fails_is_reported_and_stops_no_other(
  tmp_path, pacs, vit_file, workers, capsys
):
  # Stratified masks of a sparsity so high keep no entry of some matrix; and
  # batches have images. The soup shares its run with the method after it.
  given = config(
    *("gmixout", "learned_soup", "full_finetuning"),
    set=(
      *("gmixout.sparsity=0.999999", "learned_soup.batch_size=0"),
      "learned_soup.runs=1",
    ),
    data="pacs",
    root=pacs,
    source="photo",
    backbone=vit_file,
    steps=2,
    workers=workers,
    results=tmp_path / "results.jsonl",
    checkpoint=tmp_path / "sweep",
  )
  with pytest.raises(SystemExit, match="2 cells failed"):
    sweep.main(given)
  (line,) = records.read(given.results)
  assert line["config"]["method"]["name"] == "full_finetuning"
  shown = capsys.readouterr().out
  assert "is too small to keep one" in " ".join(shown.split())
  failed = [x for x in shown.splitlines() if x.startswith("failed: ")]
  logs = [sentence.split("see ")[1].split()[0] for sentence in failed]
  assert sorted(sentence.split(",")[0] for sentence in failed) == [
    "failed: GMixout",
    "failed: Learned soup",
  ]
  for log in logs:
    assert "Traceback" in pathlib.Path(log).read_text()
  assert "2 lines are missing in" in shown
