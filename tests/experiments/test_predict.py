"""Tests `experiments/predict.py`, and `evaluate` beside it: what users run."""

import csv
import os
import re
import shutil
import stat

import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, predict
from experiments.data.decode import View, decode
from experiments.models import backbones, export, predictor
from experiments.models.classifier import Classifier
from experiments.reporting import records
from gmixout_jax import clip
from tests.experiments import tiny

NAMES = ("owl", "ein Kauz", "cat")
SEEN = View(16, "crop", 1.25, "bilinear")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """A ViT with a head, as `experiments.train` exports it."""
  rng = np.random.default_rng(0)
  kernel = rng.standard_normal((64, 3)).astype(np.float32)
  classifier = Classifier(tiny.vit(width=64, heads=1), kernel, np.arange(3.0))
  path = tmp_path_factory.mktemp("models") / "tuned.safetensors"
  export.save(classifier, path, class_names=NAMES, view=SEEN)
  return path


@pytest.fixture
def images(tmp_path, rng):
  """Six at three depths, a broken one, and what is none."""
  root = tmp_path / "new"
  for name in (
    "b.png", "a, b/0.JPG", "a, b/c/Größe.webp", "z.bmp", "a, b/1.jpeg", "q.tif",
  ):  # fmt: skip
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (20, 26, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(root / name)
  (root / "broken.png").write_bytes(b"no image")
  (root / "notes.txt").write_text("none")
  (root / ".hidden").mkdir()
  shutil.copy(root / "b.png", root / ".hidden" / "b.png")
  return root


def run(model, images, *flags, out="out.csv"):
  path = images.parent / out
  command = [str(model), str(images), "--out", str(path), *flags]
  predict.main(predict.parse(command))
  with open(path, newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def test_every_image_has_a_row(model, images, capsys):
  rows = run(model, images)
  assert [row["file"] for row in rows] == [
    "a, b/0.JPG", "a, b/1.jpeg", "a, b/c/Größe.webp", "b.png", "q.tif", "z.bmp",
  ]  # fmt: skip
  assert list(rows[0]) == ["file", "class", "probability"]
  shown = " ".join(capsys.readouterr().out.split())
  assert "broken.png is not a readable image: cannot identify" in shown
  assert "6 of 7 images are in" in shown


def test_predictions_use_the_models_classes_and_preprocessing(model, images):
  rows = run(model, images, "--top", "3")
  # By the library alone, one image at a time.
  vit = clip.load(model)
  for row in rows:
    pixels = clip.preprocess(
      decode(images / row["file"], SEEN)[None], mean=clip.HALF, std=clip.HALF
    )
    logits = np.asarray(vit(pixels), np.float64)[0]
    wanted = np.exp(logits) / np.exp(logits).sum()
    found = {
      row[f"class{rank}"]: float(row[f"probability{rank}"])
      for rank in ("", "_2", "_3")
    }
    assert list(found) == [NAMES[i] for i in np.argsort(-wanted)]
    np.testing.assert_allclose(
      [found[name] for name in NAMES], wanted, atol=1e-5
    )


def test_a_clip_predicts_with_a_zero_shot_head(clip_folder, images):
  with pytest.raises(SystemExit, match="a CLIP without a head: name the class"):
    run(clip_folder, images)
  flags = ("--classes", "one", "two", "four")
  plain = run(clip_folder, images, *flags)
  assert {row["class"] for row in plain} <= {"one", "two", "four"}
  other = run(clip_folder, images, *flags, "--templates", "a white digit {}")
  assert plain != other


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (("--top", "4"), r"--top must be from 1 to 3, .* got 4"),
    (("--top", "0"), r"--top must be from 1 to 3"),
    (("--batch-size", "0"), r"--batch-size must be at least 1 image"),
    (("--classes", "a", "b"), r"must be left out for .*owl, ein Kauz"),
    (("--classes", "a", "a", "b"), r"names that differ, got 'a'"),
    (("--templates", "a {}"), r"--templates needs a CLIP"),
    (("--std", "0", "0", "0"), r"std above 0, got 0\.0"),
    (("--mean", "5", "5", "5"), r"must be of pixels in \[0, 1\]"),
  ],
)
def test_what_does_not_fit_is_refused(model, images, flags, message):
  with pytest.raises(SystemExit, match=message):
    run(model, images, *flags)
  assert not (images.parent / "out.csv").exists()


def test_what_is_left_out_is_counted_and_links_are_followed(
  model, images, capsys
):
  (images / "a.gif").write_bytes(b"GIF")
  (images / "IMG_1.HEIC").write_bytes(b"")
  os.mkfifo(images / "pipe.jpg")
  (images / "gone.png").symlink_to("nowhere")
  elsewhere = images.parent / "elsewhere"
  shutil.copytree(images / "a, b", elsewhere)
  (images / "linked").symlink_to(elsewhere)
  (images / "loop").symlink_to(images)
  rows = run(model, images)
  assert len(rows) == 9
  assert "linked/c/Größe.webp" in [row["file"] for row in rows]
  shown = " ".join(capsys.readouterr().out.split())
  assert f"Left out of {images}: " in shown
  for reason in (
    "1 files named .gif", "1 files named .heic", "1 files named .txt",
    "2 names that are no regular file",
  ):  # fmt: skip
    assert reason in shown


def test_a_device_is_not_replaced(model, images):
  with pytest.raises(SystemExit, match="null is no regular file"):
    predict.main(predict.parse([str(model), str(images), "--out", "/dev/null"]))
  assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_the_head_of_an_exported_clip_is_kept_without_templates(
  clip_folder, images, tmp_path, rng
):
  names = ("two", "one", "four")
  tuned = backbones.from_clip(clip_folder, names, ["a digit {}"])
  kernel = tuned.head.kernel
  kernel[...] = rng.standard_normal(kernel.shape).astype(np.float32)
  export.save(tuned, tmp_path / "tuned", class_names=names)
  own = run(tmp_path / "tuned", images)
  assert run(tmp_path / "tuned", images, "--classes", *names) == own
  with pytest.raises(SystemExit, match=r"--classes must be left .*--templat"):
    run(tmp_path / "tuned", images, "--classes", "one", "two")
  words = ("--classes", "one", "two", "--templates", "a digit {}")
  assert run(tmp_path / "tuned", images, *words) != own
  with pytest.raises(SystemExit, match=r"Did you mean .*tuned\?"):
    run(tmp_path / "tuned.safetensors", images)
  with pytest.raises(SystemExit, match="--templates must be one prompt at lea"):
    run(clip_folder, images, "--classes", "one", "two", "--templates")


def test_what_is_not_there_is_named(model, images, tmp_path):
  with pytest.raises(SystemExit, match=r"no weights at .*none"):
    run(tmp_path / "none", images)
  with pytest.raises(SystemExit, match=r"no folder .*nowhere"):
    run(model, tmp_path / "nowhere")
  (tmp_path / "empty").mkdir()
  with pytest.raises(SystemExit, match=r"no images in .*empty or below it"):
    run(model, tmp_path / "empty")
  with pytest.raises(SystemExit, match=r"--out must be a file, got the folder"):
    run(model, images, out="empty")


def test_evaluation_is_that_of_the_images_and_one_line(
  model, pacs, tmp_path, capsys
):
  renamed = {"cat": "cat", "dog": "ein Kauz", "owl": "owl"}
  for domain in ("photo", "sketch"):
    for old, new in renamed.items():
      shutil.copytree(pacs / domain / old, tmp_path / domain / new)
  results = tmp_path / "evaluations.jsonl"
  command = [
    *(str(model), "--val", str(tmp_path / "photo"), "--ood"),
    *(f"by night={tmp_path / 'sketch'}", "--results", str(results)),
  ]
  for _ in range(2):
    evaluate.main(evaluate.parse(command))
  one, two = records.read(results)
  assert one["config"] == two["config"]
  assert one["metrics"] == two["metrics"]
  assert list(one["config"]["data"]) == ["val", "ood by night"]
  vit = clip.load(model)
  for domain, told in (
    ("photo", one["metrics"]["id"]),
    ("sketch", one["metrics"]["ood"]["by night"]),
  ):
    hits = []
    for label, name in enumerate(NAMES):
      for file in sorted((tmp_path / domain / name).iterdir()):
        pixels = clip.preprocess(
          decode(file, SEEN)[None], mean=clip.HALF, std=clip.HALF
        )
        hits.append(int(np.argmax(vit(pixels))) == label)
    assert told == pytest.approx(np.mean(hits))
  shown = capsys.readouterr().out
  assert "by night" in shown
  assert "tuned.safetensors" in shown


def test_classes_are_those_of_the_model_by_name(model, pacs, tmp_path):
  command = [str(model), "--ood", f"a={pacs / 'art'}"]
  message = re.escape("it lacks 'ein Kauz' and has besides 'dog'")
  with pytest.raises(SystemExit, match=message):
    evaluate.main(evaluate.parse(command))
  with pytest.raises(SystemExit, match="--ood must name the images to eval"):
    evaluate.main(evaluate.parse([str(model)]))
  twice = [str(model), "--val", str(pacs / "art"), *command[1:]]
  with pytest.raises(SystemExit, match=r"share 15 images.*leave it out of --o"):
    evaluate.main(evaluate.parse(twice))


def test_a_clip_is_evaluated_on_the_names_of_the_folders(
  clip_folder, pacs, tmp_path
):
  results = tmp_path / "results.jsonl"
  command = [str(clip_folder), "--ood", f"a={pacs / 'art'}"]
  command += ["--results", str(results), "--templates", "a digit {}", "{}!"]
  evaluate.main(evaluate.parse(command))
  (line,) = records.read(results)
  assert line["config"]["templates"] == ["a digit {}", "{}!"]
  found = predictor.load(clip_folder, classes=tiny.CLASSES)
  assert found.class_names == tiny.CLASSES
  assert 0 <= line["metrics"]["ood"]["a"] <= 1
  assert "id" not in line["metrics"]
