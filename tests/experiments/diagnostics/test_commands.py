"""Tests both commands from flags to a line: on files, and as published."""

import pathlib
import shlex
import shutil

import jax
import numpy as np
import pytest

from experiments import metrics
from experiments.diagnostics import __main__ as command
from experiments.diagnostics import by_setting, members, options
from experiments.diagnostics.subject import Subject
from experiments.models import evaluation
from experiments.reporting import records
from experiments.tasks.digits import Digits
from experiments.tasks.recipe import Recipe
from experiments.training import loop
from tests.combinations import EXHAUSTIVE

RESULTS = pathlib.Path(options.__file__).parents[1] / "results"
PUBLISHED = records.read(RESULTS / "bvcl_digits_cpu.jsonl")
RATES = ("--learning-rate", "0.01", "--head-learning-rate", "0.003")
SHORT = (
  *("--knob", "resample_every", "--values", "2", "--every", "2"),
  *("--steps", "4", "--members-per-run", "2", "--batch-size", "4"),
  *("--held-out", "0.4"),  # two of five of a class
)


def run(*arguments):
  return command.main([*map(str, arguments)])


def parsed(*arguments):
  return command.parse([*map(str, arguments)])


@pytest.fixture
def art(pacs, vit_file):
  """Flags of one's own images: paintings, and two OOD sets."""
  return (
    *("--backbone", vit_file, "--train", pacs / "art"),
    *("--ood", f"photo={pacs / 'photo'}", f"drawn={pacs / 'sketch'}"),
  )


@EXHAUSTIVE
def test_bvcl_of_a_vit_on_ones_own_images(art, tmp_path, monkeypatch, capsys):
  fits, diagnosed = [], []
  fit, diagnose = loop.fit, members.diagnose

  def spied_fit(method, model, batches, **given):
    fits.append((next(iter(batches(0)))["image"], given))
    return fit(method, model, batches, **given)

  def spied_diagnose(*given):
    diagnosed.append(given)
    return diagnose(*given)

  monkeypatch.setattr(loop, "fit", spied_fit)
  monkeypatch.setattr(members, "diagnose", spied_diagnose)
  out = tmp_path / "lines.jsonl"
  words = (
    *("bvcl", "gmixout", *SHORT, *RATES, *art, "--label-smoothing", "0.1"),
    *("--dtype", "bfloat16", "--out", out),
  )
  assert run(*words) == 0

  # Each run has the task's batches, recipe and length, and a seed of its own.
  assert len(fits) == 3
  for image, given in fits:
    assert image.shape == (4, 16, 16, 3)
    assert given["recipe"] == Recipe(label_smoothing=0.1)
    assert given["steps"] == given["schedule"].steps == 4
    assert given["schedule"].constant
  assert len({image.tobytes() for image, _ in fits}) == 3
  assert len({str(jax.random.key_data(given["key"])) for _, given in fits}) == 3

  (line,) = records.read(out)
  config = line["config"]
  method = config["method"]
  assert (method["resample_every"], method["learning_rate"]) == (2, 0.01)
  assert "compact" not in method
  assert config["data"]["train"]["folder"] == "art"
  assert (config["weights"], config["steps"]) == ("vit.safetensors", 4)
  assert (config["label_smoothing"], config["rate"]) == (0.1, "held")
  assert config["dtype"] == "bfloat16"
  assert "command" not in line  # which would tell where files are
  assert str(tmp_path.parent) not in str(line)

  # All start from the same fitted head, and are measured on the same images.
  ((runs, scorer, sets),) = diagnosed
  for one in runs:
    jax.tree.map(np.testing.assert_array_equal, one.initial, runs[0].initial)
  assert np.any(runs[0].initial["head"]["kernel"])
  assert [(k, len(v)) for k, v in sets.items()] == [
    ("id", 6),
    ("photo", 15),
    ("drawn", 15),
  ]
  photo, told = sets["photo"], line["bvcl"]["sets"]["photo"]

  def brier(weights):
    logits = evaluation.logits(scorer.model(weights), photo)
    return metrics.brier(metrics.softmax(logits), photo.labels)

  deployed = np.mean([brier(one.deployed) for one in runs])
  assert told["deployed"]["mean"] == pytest.approx(deployed, rel=1e-5)
  member = np.mean([brier(each) for one in runs for each in one.members])
  assert told["member"]["mean"] == pytest.approx(member, rel=1e-5)

  # What the file has is not run again: nothing is even opened.
  monkeypatch.setattr(Subject, "of", None)
  capsys.readouterr()
  assert run(*words) == 0
  assert "appended 0 lines" in capsys.readouterr().out


def test_landscape_of_a_domain(sketch, mlp, trained, tmp_path):
  rate = "full_finetuning.learning_rate=0.003"
  out = tmp_path / "lines.jsonl"
  status = run(
    *("landscape", *sketch, "--points", "3", "--seed", "2", "--out", out),
    *("--set", rate, "gmixout.learning_rate=0.01"),
    *("gmixout.head_learning_rate=0.003", "gmixout.resample_every=2"),
  )
  assert status == 0
  (line,) = records.read(out)
  full, gmixout = line["config"].pop("methods")
  assert (full["name"], full["learning_rate"]) == ("full_finetuning", 0.003)
  assert (gmixout["name"], gmixout["resample_every"]) == ("gmixout", 2)
  found = line["landscape"]
  assert set(found["lines"]) == {"full_finetuning", "gmixout"}
  assert np.shape(found["plane"]["ood"]) == (3, 3)

  # A line begins at the model that is shared, and ends at what train deploys.
  same = (*sketch, "--seed", "2")
  alone = trained("full_finetuning", *same, "--learning-rate", "0.003")
  assert line["config"] == {
    k: v for k, v in alone["config"].items() if k != "method"
  }
  start = trained("linear_probe", *same)
  for end, whole in ((-1, alone), (0, start)):
    told = found["lines"]["full_finetuning"]
    assert told["id"][end] == pytest.approx(whole["metrics"]["id"])
    assert told["ood"][end] == pytest.approx(whole["metrics"]["mean_ood"])


@pytest.mark.parametrize("line", PUBLISHED, ids=lambda line: line["time"])
def test_published_lines_are_found_again(line, tmp_path):
  words = shlex.split(line["command"])[3:]
  config = parsed(*words, "--out", tmp_path / "x.jsonl")
  (setting,) = config.tried()
  plan = by_setting.plan_of(config, setting, options.described(config.task()))
  assert plan["config"] == line["config"]
  assert by_setting.identity(plan) == by_setting.identity(line)
  assert config.command(config.values[0], 160) == line["command"]


def test_what_is_published_is_not_run_again(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(Subject, "of", None)
  out = tmp_path / "lines.jsonl"
  for line in PUBLISHED:
    records.append(out, line)
  assert run("bvcl", "gmixout", "--values", "0.5", "0.9", "--out", out) == 0
  assert "appended 0 lines" in capsys.readouterr().out


def test_lines_on_the_digits_tell_what_is_not_as_published(tmp_path):
  config = parsed(
    *("bvcl", "mixout", "--values", "0.5", "--batch-size", "32", "--falling"),
    *("--mixup", "0.2", "--learning-rate", "0.01", "--out", tmp_path / "x"),
  )
  task = config.task()
  assert task == Digits(steps=160, batch_size=32, recipe=Recipe(mixup=0.2))
  assert options.described(task) == {
    "data": "scanned_digits",
    "steps": 160,
    "batch_size": 32,
    "mixup": 0.2,
  }
  again = shlex.split(config.command(0.5, 160))[3:]
  assert parsed(*again, "--out", tmp_path / "x") == parsed(
    *("bvcl", "mixout", "--values", "0.5", "--batch-size", "32", "--falling"),
    *("--mixup", "0.2", "--learning-rate", "0.01", "--out", tmp_path / "x"),
    *("--steps", "160"),
  )
  published = records.read(RESULTS / "landscape_digits_cpu.jsonl")[0]["config"]
  assert parsed("landscape", "--out", tmp_path / "x").described() == published


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--ood", "id={pacs}/photo"), "must have another name than 'id'"),
    (("--ood", "few={few}"), "at least 4 images, but the few images are 3"),
    ((), "--ood must name such images"),
    (("--steps", "5"), "got 5, 2 and 2"),
  ],
)
def test_what_cannot_be_measured_is_refused_before_training(
  more, message, pacs, vit_file, mlp, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(loop, "fit", None)
  few = tmp_path / "few"
  for name in ("cat", "dog", "owl"):
    (few / name).mkdir(parents=True)
    shutil.copy(pacs / "photo" / name / "0.png", few / name)
  given = [word.format(pacs=pacs, few=few) for word in more]
  status = run(
    *("bvcl", "gmixout", *SHORT, *RATES, "--out", tmp_path / "x.jsonl"),
    *("--backbone", vit_file, "--train", pacs / "art", *given),
  )
  assert status == 1
  assert message in " ".join(capsys.readouterr().err.split())


def test_a_length_in_epochs_is_known_when_images_are(
  art, mlp, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(loop, "fit", None)
  words = ["bvcl", "gmixout", *SHORT, *RATES, *art, "--out", tmp_path / "x"]
  at = words.index("--steps")
  words[at : at + 2] = ["--epochs", "1"]  # of 9 images, 4 a step
  assert run(*words) == 1
  assert "got 3, 2 and 2" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ((), "--set full_finetuning.learning_rate=RATE must be given"),
    (
      ("gmixout.learning_rate=1", "full_finetuning.learning_rate=1"),
      "--set gmixout.head_learning_rate=RATE must be given",
    ),
    (
      (
        *("gmixout.learning_rate=1", "full_finetuning.learning_rate=1"),
        *("gmixout.head_learning_rate=1", "mixout.learning_rate=1"),
      ),
      "--set mixout.head_learning_rate=RATE must be given",
    ),
    (("lora.rank=2",), "must be of one of full_finetuning, full_finetuning_of"),
  ],
)
def test_a_landscape_needs_rates_of_its_own(
  settings, message, art, tmp_path, capsys
):
  given = ("--set", *settings) if settings else ()
  assert run("landscape", *art, *given, "--out", tmp_path / "x") == 1
  assert message in " ".join(capsys.readouterr().err.split())
