"""Tests `experiments/tasks/image_task.py`."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from experiments import configs
from experiments.configs.study import scales
from experiments.data.decode import View
from experiments.harness.cell import Cell
from experiments.methods.linear_probe import LinearProbe
from experiments.models import backbones, probe
from experiments.reporting import records
from experiments.reporting.identity import identity_of
from experiments.tasks.domains import Domains
from experiments.tasks.image_task import ImageTask, Setup
from experiments.tasks.recipe import Recipe
from experiments.tasks.user_images import UserImages
from gmixout_jax import clip
from tests.experiments import tiny

RESULTS = pathlib.Path(configs.__file__).parents[1] / "results"


def task(root, backbone, **fields):
  return ImageTask(
    Domains(root=root, source="photo"), Setup(backbone=backbone, **fields)
  )


def test_images_have_the_size_of_the_backbone_unless_another_is_asked_for(
  pacs, vit_file, clip_folder
):
  for backbone in (vit_file, clip_folder):
    own = task(pacs, backbone)
    assert own.config["data"]["image_size"] == tiny.SIZE
    assert own.open(0).source.train[0]["image"].shape == (16, 16, 3)
    # To ask for what it is anyway changes nothing.
    assert task(pacs, backbone, image_size=16).config == own.config
    larger = task(pacs, backbone, image_size=24)
    assert larger.config["data"]["image_size"] == 24
    opened = larger.open(0)
    for images in (*opened.source, *opened.ood.values()):
      assert images[0]["image"].shape == (24, 24, 3)
    logits = opened.model(np.zeros((2, 24, 24, 3), np.uint8))
    assert logits.shape == (2, 3)


def test_a_vit_starts_from_the_linear_probe_of_the_seed(pacs, vit_file):
  first, again, other = (task(pacs, vit_file).open(s) for s in (0, 0, 1))
  model = backbones.from_vit(vit_file, 3, image_size=16)
  assert probe.is_blank(model)
  wanted = probe.fit_head(model, first.source).head.kernel[...]
  np.testing.assert_array_equal(first.model.head.kernel[...], wanted)
  np.testing.assert_array_equal(again.model.head.kernel[...], wanted)
  assert np.any(other.model.head.kernel[...] != wanted)


def test_a_probe_may_be_of_fewer_images(pacs, vit_file, monkeypatch):
  probed = []

  def fit_head(model, source):
    probed.append([source.train.counts().sum(axis=0).tolist(), source])
    return model

  monkeypatch.setattr(probe, "fit_head", fit_head)
  opened = task(pacs, vit_file, probe_images=6).open(0)
  ((counts, source),) = probed
  assert counts == [2, 2, 2]
  assert source.validation is opened.source.validation
  assert len(opened.source.train) == 12


def test_a_clip_starts_from_the_names_of_the_classes(
  pacs, clip_folder, tmp_path
):
  root = pathlib.Path(shutil.copytree(pacs, tmp_path / "PACS"))
  names = ("four", "one", "two")  # words that its tokenizer knows
  for domain in root.iterdir():
    for old, new in zip(tiny.CLASSES, names, strict=True):
      (domain / old).rename(domain / new)
  templates = ("a digit {}", "a white digit {}")
  opened = task(root, clip_folder, templates=templates).open(0)
  assert opened.model.prompts.token_ids.shape[:2] == (3, 2)
  wanted = backbones.from_clip(clip_folder, names, templates).head.kernel[...]
  assert not np.allclose(wanted, wanted[:, ::-1])
  np.testing.assert_array_equal(opened.model.head.kernel[...], wanted)
  assert opened.model.mean == clip.CLIP_MEAN
  own = task(pacs, clip_folder, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
  assert own.open(0).model.mean == (0.1, 0.2, 0.3)
  assert own.config["mean"] == [0.1, 0.2, 0.3]


def test_what_is_asked_for_reaches_the_runs(pacs, mlp, vit_file):
  def headline(found):
    return {"ID": found["id"]}

  asked = {"warmup": 0.2, "augment": "none", "batch_size": 4} | {
    "skip_nonfinite": 3,
    "recipe": Recipe(mixup=0.2),
  }
  whole = ImageTask(
    Domains(root=pacs, target="photo"),
    Setup(backbone=vit_file, **asked),
    headline=headline,
    long_tail=True,
  )
  opened = whole.open(7)
  assert {name: getattr(opened, name) for name in asked} == asked
  assert opened.seed == 7
  assert opened.balanced
  assert opened.headline is headline
  assert opened.train_counts.tolist() == [12, 12, 12]
  usual = task(pacs, vit_file).open(0)
  assert (usual.headline, usual.train_counts, usual.test) == (None, None, None)


@pytest.mark.parametrize("resize", ["crop", "squeeze"])
def test_user_images_are_seen_as_the_backbone_says_and_domains_squeezed(
  pacs, tmp_path, resize
):
  backbone = tmp_path / "vit.safetensors"
  zoom = 1.25 if resize == "crop" else 1.0
  wanted = clip.Preprocessing(
    clip.HALF, clip.HALF, 16, resize, zoom, interpolation="bilinear"
  )
  clip.save(tiny.vit(width=64, heads=1), backbone, preprocessing=wanted)
  setup = Setup(backbone=backbone, image_size=24)
  own = ImageTask(UserImages(train=pacs / "art"), setup).open(0)
  assert own.view == View(24, resize, zoom, "bilinear")
  assert own.source.train.loader.view == own.view
  domain = ImageTask(Domains(root=pacs, source="art"), setup).open(0)
  assert domain.view == View(24, "squeeze")


def test_a_clip_without_preprocessing_takes_the_documented_one(
  pacs, clip_folder, tmp_path
):
  silent = pathlib.Path(shutil.copytree(clip_folder, tmp_path / "clip"))
  (silent / "preprocessor_config.json").unlink()
  images = UserImages(train=pacs / "art")
  asked = ImageTask(images, Setup(backbone=silent))
  assert asked.config["preprocessing"] == "CLIP's"
  opened = asked.open(0)
  (note,) = opened.notes
  assert note.startswith(f"{silent} has no preprocessing config, so CLIP's")
  assert "mean 0.481455 0.457827 0.408211, std 0.26" in note
  assert opened.view == View(16, "crop", 1.0, "bicubic")
  assert opened.model.mean == clip.CLIP_MEAN
  said = ImageTask(images, Setup(backbone=clip_folder))
  assert "preprocessing" not in said.config
  assert said.open(0).notes == ()
  # What is asked for is no guess.
  pixels = {"mean": clip.HALF, "std": clip.HALF}
  given = ImageTask(images, Setup(backbone=silent, **pixels))
  assert "preprocessing" not in given.config


def test_what_the_class_folders_leave_out_is_noted(
  pacs, mlp, vit_file, tmp_path
):
  root = pathlib.Path(shutil.copytree(pacs / "art", tmp_path / "art"))
  (root / "cat" / "about.txt").write_text("cats")
  asked = ImageTask(UserImages(train=root), Setup(backbone=vit_file))
  assert asked.open(0).notes == (f"Left out of {root}: 1 files named .txt.",)


def test_epochs_become_steps(pacs, mlp, vit_file):
  def steps(**fields):
    return task(pacs, vit_file, batch_size=5, **fields).open(0).steps

  assert steps(epochs=2.0) == 5  # of 12 images: 4.8
  assert steps(steps=7) == 7
  assert steps() == 300
  assert task(pacs, vit_file).config["steps"] == 300
  by_epochs = task(pacs, vit_file, epochs=2.0).config
  assert by_epochs["epochs"] == 2
  assert "steps" not in by_epochs


def test_a_line_records_what_differs_from_the_defaults(pacs, vit_file):
  usual = task(pacs, vit_file).config
  assert list(usual) == ["data", "weights", "backbone_digest", "steps", "crops"]
  assert usual.pop("crops") == "original"
  assert usual["weights"] == "vit.safetensors"  # not the folder it lies in
  changed = {
    "dtype": "bfloat16",
    "attention": "cudnn",
    "remat": True,
    "warmup": 0.2,
    "augment": "none",
    "skip_nonfinite": 3,
  }
  found = task(
    pacs,
    vit_file,
    std=(0.2, 0.2, 0.2),
    recipe=Recipe(mixup=0.2, weight_decay=0.0),
    **changed,
  ).config
  told = changed | {"std": [0.2, 0.2, 0.2], "mixup": 0.2, "weight_decay": 0.0}
  assert found == usual | told
  json.dumps(found)
  # Prompts that are asked for are told, be they those of CLIP or not: an
  # experiment that has its own is another task.
  words = {"templates": ("a photo of a {}.",), "tell_templates": True}
  told = {"templates": ["a photo of a {}."], "crops": "original"}
  assert task(pacs, vit_file, **words).config == usual | told


def test_another_backbone_of_the_same_name_is_another_task(
  pacs, vit_file, clip_folder, tmp_path
):
  def identity(backbone):
    return Cell(task(pacs, backbone), LinearProbe(), 0).identity

  def changed(file):
    """Its last byte, which is of a weight."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

  same, other = tmp_path / "a" / vit_file.name, tmp_path / "b" / vit_file.name
  for copy in (same, other):
    copy.parent.mkdir()
    shutil.copy(vit_file, copy)
  changed(other)
  assert identity(same) == identity(vit_file) != identity(other)
  same, other = (
    pathlib.Path(shutil.copytree(clip_folder, tmp_path / name / "clip"))
    for name in ("a", "b")
  )
  changed(other / "model.safetensors")
  assert identity(same) == identity(clip_folder) != identity(other)


def test_what_is_wrong_is_said_before_images_are_read(pacs, tmp_path, vit_file):
  nowhere = pacs / "none"
  with pytest.raises(
    FileNotFoundError, match=r"no weights at .*--backbone must"
  ):
    task(nowhere, tmp_path / "none", image_size=16).open(0)
  with pytest.raises(
    FileNotFoundError, match=r"no weights at .*--backbone must"
  ):
    _ = task(nowhere, tmp_path / "none").config
  with pytest.raises(ValueError, match="got dtype = 'float32'"):
    task(nowhere, vit_file, attention="cudnn").open(0)
  for wrong, message in (
    ({"batch_size": 0}, "batch_size must be at least 1 image, got 0"),
    ({"image_size": 0}, "image_size must be at least 1 pixel .* got 0"),
    ({"steps": 0}, "steps must be at least 1, got 0"),
    ({"epochs": 0.0}, "epochs must be finite and above 0, got 0.0"),
    ({"steps": 3, "epochs": 2.0}, "got steps=3 and epochs=2.0"),
  ):
    with pytest.raises(ValueError, match=message):
      Setup(backbone=vit_file, **wrong)


def test_lines_of_the_study_are_as_published(tmp_path):
  backbone = tmp_path / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"
  asked = scales.CPU.on(tmp_path / "PACS", backbone, source="cartoon")
  lines = records.read(RESULTS / "curves_short_cpu.jsonl")
  assert len(lines) > 200
  for line in lines:
    rest = {k: v for k, v in line["config"].items() if k != "method"}
    assert rest == records.plain(asked.config)
  (line,) = (
    line
    for line in lines
    if (line["config"]["method"]["name"], line["seed"]) == ("linear_probe", 0)
  )
  cell = Cell(asked, LinearProbe(), 0)
  assert records.plain(cell.config) == line["config"]
  assert cell.identity == identity_of(line["config"], 0)


def test_balance_is_told_where_several_domains_train(tmp_path):
  for chosen, same in (({"source": "art"}, True), ({"target": "art"}, False)):
    task = scales.CPU.on(tmp_path / "PACS", tmp_path / "vit.x", **chosen)
    balanced = dataclasses.replace(task.images, balanced=True)
    assert (ImageTask(balanced, task.setup).config == task.config) == same
