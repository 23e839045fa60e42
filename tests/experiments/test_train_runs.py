"""Tests `experiments/train.py` from flags to a line, on files."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from experiments.data import domainbed
from experiments.data.decode import View
from experiments.harness.display import ProgressRow
from experiments.methods.gmixout import GMixout
from experiments.models import evaluation, predictor
from experiments.reporting import records
from experiments.tasks.user_images import UserImages
from experiments.training import metrics_log
from gmixout_jax import clip
from tests.combinations import EXHAUSTIVE

SMALL = ("--batch-size", "4", "--steps", "3")


def images_in(record, name):
  found = record["metrics"]["details"][name]["reliability"]["count"]
  return sum(found)


def test_a_vit_on_a_domain_from_end_to_end(
  trained, tmp_path, capsys, pacs, sketch
):
  path = tmp_path / "runs" / "results.jsonl"
  exported = tmp_path / "deployed.safetensors"
  record = trained(
    *("gmixout", *sketch, "--seed", "3", "--export", exported), path=path
  )
  shown = capsys.readouterr().out
  assert "GMixout on PACS from sketch, seed 3" in " ".join(shown.split())
  assert "mean OOD" in shown
  assert f"Its line is in {path}" in shown

  assert len(records.read(path)) == 1
  config = record["config"]
  asked = {"name": "gmixout", **dataclasses.asdict(GMixout())}
  del asked["compact"]  # which form trains is no part of what was run
  assert config["method"] == asked
  assert config["data"]["source"] == "sketch"
  assert config["data"]["root"] == "PACS"  # not the folder it lies in
  assert str(tmp_path.parent) not in path.read_text()
  assert record["seed"] == 3
  assert "seed" not in config
  assert record["device"] == "cpu"
  assert set(record["metrics"]["ood"]) == {"art", "cartoon", "photo"}
  assert len(record["losses"]) == record["stats"]["steps"] == 3

  vit = clip.vit_from_safetensors(exported)
  photo = domainbed.open_images(pacs, view=View(16)).domain("photo").in_memory()
  pixels = clip.preprocess(photo.images, mean=clip.HALF, std=clip.HALF)
  right = np.asarray(vit(pixels)).argmax(-1) == photo.labels
  assert record["metrics"]["ood"]["photo"] == pytest.approx(right.mean())


def test_a_clip_on_user_images_from_end_to_end(
  trained, tmp_path, capsys, pacs, clip_folder
):
  exported = tmp_path / "exported"
  record = trained(
    *("gmixout", "--backbone", clip_folder),
    *("--train", pacs / "art", "--val", pacs / "photo", "--ood"),
    *(f"[by] night={pacs / 'sketch'}", "--ood", f"drawn={pacs / 'cartoon'}"),
    *(*SMALL, "--export", exported),
  )
  shown = " ".join(capsys.readouterr().out.split())
  assert "GMixout on art, clip, seed 0" in shown
  assert "[by]" in shown
  config, found = record["config"], record["metrics"]
  assert config["backbone"] == "clip"
  assert config["data"]["validation"]["folder"] == "photo"
  assert list(config["data"]["ood"]) == ["[by] night", "drawn"]
  assert list(found["ood"]) == ["[by] night", "drawn"]
  assert images_in(record, "id") == 15
  # What was exported scores the same, on images that are opened apart.
  model = predictor.load(exported).model
  images = UserImages(train=pacs / "art", validation=pacs / "sketch")
  sketch = images.open(View(16, fit="crop"), 0).source.validation
  scored = evaluation.measure(evaluation.logits(model, sketch), sketch.labels)
  told = found["details"]["ood/[by] night"]
  assert told["top1"] == found["ood"]["[by] night"]
  for name in ("top1", "brier"):
    assert told[name] == pytest.approx(scored[name], abs=1e-5)


def test_without_validation_or_ood_images_a_share_is_held_out(
  trained, capsys, pacs, vit_file, mlp
):
  record = trained(
    *("full_finetuning", "--backbone", vit_file),
    *("--train", pacs / "art", "--held-out", "0.4", *SMALL),
  )
  assert "OOD" not in capsys.readouterr().out
  assert record["metrics"]["ood"] == {}
  assert "mean_ood" not in record["metrics"]
  assert images_in(record, "id") == 6  # two of five of each class
  assert record["config"]["data"]["held_out"] == 0.4


def test_an_experiment_by_name(trained, capsys, imagenet, vit_file, mlp):
  record = trained(
    *("full_finetuning", "--backbone", vit_file),
    *("--data", "imagenet_sizes/25%", "--root", imagenet, "--image-size", "16"),
    *("--steps", "2", "--batch-size", "6"),
  )
  shown = " ".join(capsys.readouterr().out.split())
  assert "fine-tuning on imagenet_sizes/25%, seed 0" in shown
  assert record["config"]["data"] == "imagenet_sizes/25%"
  assert record["stats"]["steps"] == 2
  headline = {"ID", "V2", "R", "Sketch", "A", "ObjectNet", "mean OOD"}
  assert set(record["metrics"]["headline"]) == headline
  assert images_in(record, "id") == 6  # the test, which no choice has seen
  assert images_in(record, "validation") == 3


@EXHAUSTIVE  # in `training/test_watching.py`
def test_a_run_that_is_watched(trained, tmp_path, sketch, mlp, monkeypatch):
  shown, evaluated = [], ProgressRow.evaluated

  def spied(row, member, taken, found):
    evaluated(row, member, taken, found)
    shown.append((taken, sorted(found)))

  monkeypatch.setattr(ProgressRow, "evaluated", spied)
  log = tmp_path / "log"
  record = trained(
    *("gmixout", *sketch[:-2], "--epochs", "1"),
    *("--mixup", "0.2", "--accumulate", "2", "--eval-every", "2"),
    *("--patience", "5", "--watch-ood", "--log-dir", log),
  )
  steps = record["stats"]["steps"]
  lines = metrics_log.read(log / "metrics.jsonl")
  losses = [line["loss"] for line in lines if "loss" in line]
  assert len(losses) == steps == 3  # of 12 images, four a class
  assert [round(loss, 5) for loss in losses] == record["losses"]
  evaluations = [line for line in lines if "id_accuracy" in line]
  assert [line["step"] for line in evaluations] == [2, 3]
  best = max(evaluations, key=lambda line: line["id_accuracy"])
  assert best["id_accuracy"] == record["metrics"]["id"]
  assert best["ood_accuracy/photo"] == record["metrics"]["ood"]["photo"]
  assert record["config"]["mixup"] == 0.2
  assert record["config"]["epochs"] == 1
  ood = [f"ood_accuracy/{name}" for name in ("art", "cartoon", "photo")]
  assert shown == [(taken, ["id_accuracy", *ood]) for taken in (2, 3)]


def test_an_ensemble_has_a_line_and_no_export(
  trained, tmp_path, capsys, sketch, mlp
):
  path, deployed = tmp_path / "results.jsonl", tmp_path / "deployed"
  command = ("output_ensemble", *sketch, "--runs=2", "--export", deployed)
  for _ in range(2):  # nor is it run again for want of one
    record = trained(*command)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Nothing was exported to" in shown
    assert "an ensemble is 2 models" in shown
    assert len(records.read(path)) == 1
    assert record["stats"]["runs"] == 2
    assert not deployed.exists()


@pytest.mark.parametrize("method", ["zero_shot", "linear_probe"])
def test_methods_without_steps(trained, method, pacs, clip_folder):
  record = trained(
    *(method, "--backbone", clip_folder, *SMALL),
    *("--train", pacs / "art", "--ood", f"photo={pacs / 'photo'}"),
  )
  assert record["losses"] == []
  assert record["stats"]["steps"] == 0
  accuracy = record["metrics"]["ood"]["photo"]
  if method == "zero_shot":  # to its tokenizer these three words are one
    assert accuracy == pytest.approx(1 / 3)
  else:
    assert accuracy > 0.5


def test_zero_shot_is_refused_where_a_head_was_fitted(trained, sketch):
  with pytest.raises(SystemExit, match="zero_shot needs a CLIP"):
    trained("zero_shot", *sketch)


@EXHAUSTIVE  # in `training/test_watching.py`
def test_evaluations_on_the_way_are_in_a_log(trained, sketch, mlp, capsys):
  """Which is no terminal, and has no rows that come and go."""
  trained("full_finetuning", *sketch, "--eval-every", "2", "--watch-ood")
  shown = " ".join(capsys.readouterr().out.split())
  assert "seed 0: Full fine-tuning, step 2" in shown
  assert "(OOD)" in shown


def test_a_clip_is_exported_as_a_folder(trained, pacs, clip_folder, tmp_path):
  with pytest.raises(SystemExit, match=r"--export must be a folder .*\.safe"):
    trained(
      *("gmixout", "--backbone", clip_folder, "--train", pacs / "art", *SMALL),
      *("--export", tmp_path / "model.safetensors"),
    )


def test_broken_images_are_left_out_if_asked_for(
  trained, tmp_path, pacs, vit_file, mlp, capsys
):
  art = pathlib.Path(shutil.copytree(pacs / "art", tmp_path / "art"))
  (art / "cat" / "0.png").write_bytes(b"no image")
  command = (
    *("full_finetuning", "--backbone", vit_file),
    *("--train", pacs / "photo", "--ood", f"art={art}", *SMALL),
  )
  with pytest.raises(SystemExit, match=r"cat.0\.png is not a readable image"):
    trained(*command)
  record = trained(*command, "--skip-broken")
  assert capsys.readouterr().out.count("Left out 1 of 15 images of") == 1
  assert images_in(record, "ood/art") == 14
  assert record["config"]["data"]["skip_broken"] is True
