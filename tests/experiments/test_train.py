"""Tests `experiments/train.py`: what is told, refused, and run again."""

import dataclasses
import io
import pathlib
import shutil

import pytest
import rich.console

from experiments import methods, train
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.model_soups import UniformSoup
from experiments.methods.wise_ft import WiseFT
from experiments.reporting import records
from experiments.reporting.entries import group
from experiments.tasks import image_task

SMALL = ("--batch-size", "4", "--steps", "3")


def test_command_line():
  config = train.parse(
    ["gmixout", "--sparsity=0.8", "--source=photo", "--seed=3"]
  )
  assert config.method == GMixout(sparsity=0.8)
  assert config.source == "photo"
  assert (config.seed, config.steps) == (3, None)
  # Before the method's name as well as after it.
  config = train.parse(["--seed=3", "full_finetuning", "--learning-rate=1e-5"])
  assert config.method.learning_rate == 1e-5
  assert config.seed == 3
  for arguments in (
    ["--method", "full_finetuning", "--seed=3", "--learning-rate=1e-5"],
    ["--seed=3", "--method=full_finetuning", "--learning-rate=1e-5"],
  ):
    again = train.parse(arguments)  # of a class of its own
    assert dataclasses.asdict(again) == dataclasses.asdict(config)


def test_help_lists_the_methods(capsys):
  with pytest.raises(SystemExit) as stop:
    train.parse(["--help"])
  assert stop.value.code == 0
  shown = capsys.readouterr().out
  assert "usage: python -m experiments.train" in shown
  assert all(name in shown for name in methods.METHODS)


def test_a_method_on_another_one_is_set_up_from_the_command_line():
  config = train.parse(["wise_ft", "--alpha=0.2", "--of.learning-rate=1e-5"])
  assert config.method == WiseFT(
    of=FullFinetuning(learning_rate=1e-5), alpha=0.2
  )
  config = train.parse(["uniform_soup", "--runs=3", "--factors", "1", "2"])
  assert config.method == UniformSoup(runs=3, factors=(1.0, 2.0))


def test_weight_decay_is_the_method_s_own_if_it_has_one():
  config = train.parse(["full_finetuning", "--weight-decay", "0.1"])
  assert config.method == FullFinetuning(weight_decay=0.1)
  assert config.training.described() == {}
  config = train.parse(["wise_ft", "--weight-decay", "0.1"])
  assert config.training.weight_decay == 0.1


def test_the_recipe_and_the_watching_are_flags(sketch):
  def parse(*arguments):
    return train.parse([*map(str, ("gmixout", *sketch[:-2])), *arguments])

  config = parse(
    *("--epochs", "2", "--accumulate", "4", "--mixup", "0.2"),
    *("--cutmix", "1", "--label-smoothing", "0.1", "--clip-norm", "1"),
    *("--optimizer", "lion", "--schedule", "linear", "--warmup", "0.2"),
    *("--weight-decay", "0.05", "--eval-every", "50", "--patience", "3"),
    *("--eval-images", "20", "--log-dir", "log", "--profile", "trace"),
    "--watch-ood",
  )
  recipe = {
    **{"label_smoothing": 0.1, "mixup": 0.2, "cutmix": 1.0, "clip_norm": 1.0},
    **{"accumulate": 4, "optimizer": "lion", "schedule": "linear"},
    "weight_decay": 0.05,
  }
  watched = {"eval_every": 50, "eval_images": 20, "patience": 3}
  assert dataclasses.asdict(config.training) == recipe
  assert dataclasses.asdict(config.watching) == watched | {
    "log_dir": pathlib.Path("log"),
    "profile": pathlib.Path("trace"),
    "watch_ood": True,
  }
  plain = parse().cell().config
  assert config.cell().config == {
    **{k: v for k, v in plain.items() if k != "steps"},
    **{"epochs": 2.0, "warmup": 0.2},
    **recipe,
    **watched,
  }
  # A line without any of it tells none of it.
  assert list(plain) == [
    *("method", "data", "weights", "backbone_digest", "steps", "crops")
  ]
  # What is only looked at, and where, is no part of what was run.
  seen = parse(
    *("--eval-every", "5", "--log-dir", "log", "--checkpoint", "saved"),
    *("--export", "out", "--save-every", "7", "--full-finetuning-lr", "1e-5"),
    *("--sharding", "data", "--decode-threads", "3"),
    *("--decode-processes", "2"),
  )
  assert seen.cell().identity == parse().cell().identity
  assert parse("--seed", "1").cell().config == plain


def test_a_rate_far_from_the_rule_is_warned_of(tmp_path, sketch):
  # The default of 2.5e-3, where 2.5e-4 would follow.
  config = train.parse(
    [*map(str, ("gmixout", *sketch)), "--full-finetuning-lr", "1e-5"]
  )
  with pytest.warns(
    UserWarning, match="is 0.0025, but 1e-05 for full fine-tuning"
  ):
    config.method.check_learning_rate(config.full_finetuning_lr)
  with pytest.warns(UserWarning, match="is 0.0025"):
    WiseFT(of=config.method).check_learning_rate(1e-5)
  config.method.check_learning_rate(2e-4)  # no warning, or this fails
  with pytest.raises(ValueError, match="1e-05 has no meaning for FullFinetun"):
    FullFinetuning().check_learning_rate(1e-5)
  missing = dataclasses.replace(config, backbone=tmp_path / "none")
  with (
    pytest.warns(UserWarning, match="is 0.0025"),
    pytest.raises(SystemExit, match="no weights"),
  ):
    train.main(missing)


def test_a_table_names_folders_as_they_are_and_keeps_its_title_whole():
  record = {
    "config": {
      "method": {"name": "gmixout"},
      "data": {"train": {"folder": "[raw] photos"}},
    },
    "seed": 0,
    "metrics": {"id": 0.5, "ood": {}},
  }
  console = rich.console.Console(file=io.StringIO(), width=80)
  console.print(train.table(record))
  shown = console.file.getvalue()
  assert "GMixout on [raw] photos, seed 0: accuracy (%)" in shown
  assert "50.0" in shown


def test_errors_are_one_line(trained, tmp_path, sketch, mlp):
  path = tmp_path / "results.jsonl"
  for change, message in (
    (
      ("--backbone", tmp_path / "none"),
      "no weights at .*none: --backbone must",
    ),
    (("--root", tmp_path / "no"), r"no folder .*no: expected <root>/<domain>"),
    (("--source", "clip"), r"--source must .* 'clip' and .* art, cartoon, pho"),
    (("--target", "art"), "give one of them, got 'sketch' and 'art'"),
    (("--train", "x"), "--train must .* or --data .*, got x and 'pacs'"),
    (("--image-size", "0"), "image_size must be at least 1 pixel .* got 0"),
    (("--batch-size", "0"), "batch_size must be at least 1 image, got 0"),
    (("--accumulate", "3"), "4 images cannot be .* accumulate=3 micro-batches"),
  ):
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
      trained("full_finetuning", *sketch, *change)
  assert not path.exists()


def test_a_line_that_is_there_is_not_run_again(
  trained, tmp_path, capsys, sketch, mlp, monkeypatch
):
  path = tmp_path / "results.jsonl"
  first = trained("full_finetuning", *sketch)
  capsys.readouterr()
  with monkeypatch.context() as patched:
    patched.setattr(image_task.ImageTask, "open", None)  # not even opened
    again = trained("full_finetuning", *sketch)
  shown = " ".join(capsys.readouterr().out.split())
  assert again == first
  assert len(records.read(path)) == 1
  assert "1 of 1 lines are in" in shown
  assert "seed 0: accuracy" in shown  # it is shown as if it had been run
  # Anything else that was asked for is another run.
  for count, change in enumerate(
    (
      ("--seed", "1"),
      ("--learning-rate", "1e-5"),
      ("--steps", "2"),
      ("--mixup", "0.1"),
      ("--held-out", "0.3"),
      ("--eval-every", "1", "--patience", "1"),
    ),
    start=2,
  ):
    trained("full_finetuning", *sketch, *change)
    assert len(records.read(path)) == count
  # In an earlier version's words it is the same.
  earlier = tmp_path / "earlier.jsonl"
  usual = {"remat": False, "warmup": 0.1}
  told = first | {"config": first["config"] | usual | {"skip_nonfinite": 0}}
  records.append(earlier, told)
  trained("full_finetuning", *sketch, path=earlier)
  assert len(records.read(earlier)) == 1


def test_other_files_of_the_same_name_are_run(
  trained, tmp_path, pacs, vit_file, mlp
):
  path, elsewhere = tmp_path / "results.jsonl", tmp_path / "elsewhere"
  art = pathlib.Path(shutil.copytree(pacs / "art", elsewhere / "art"))
  vit = pathlib.Path(shutil.copy(vit_file, elsewhere))

  def lines(train, backbone):
    trained(
      *("full_finetuning", "--train", train, "--backbone", backbone),
      *SMALL,
    )
    return len(records.read(path))

  assert lines(pacs / "art", vit_file) == 1
  assert lines(art, vit) == 1  # copies
  other = pathlib.Path(shutil.copytree(art, tmp_path / "more" / "art"))
  shutil.copy(other / "cat" / "0.png", other / "cat" / "5.png")
  assert lines(other, vit_file) == 2
  changed = bytearray(vit_file.read_bytes())
  changed[-1] ^= 1  # of a weight
  other = tmp_path / "more" / vit.name
  other.write_bytes(changed)
  assert lines(pacs / "art", other) == 3
  assert len(group(records.read(path))) == 3
