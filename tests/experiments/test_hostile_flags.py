"""What a stranger tried on the commands, and what came of it."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from experiments import sweep, train
from experiments.models import backbones, predictor
from experiments.reporting import records
from tests.combinations import EXHAUSTIVE
from tests.experiments import tiny

SMALL = ("--batch-size", "4", "--steps", "2")


@pytest.fixture
def photos(pacs, vit_file):
  return ("--train", pacs / "art", "--backbone", vit_file, *SMALL)


def test_an_export_over_the_backbone_is_refused(
  trained, pacs, vit_file, tmp_path
):
  mine = pathlib.Path(shutil.copy(vit_file, tmp_path / "vit.safetensors"))
  before = mine.read_bytes()
  for target in (mine, tmp_path / "sub" / ".." / "vit"):
    with pytest.raises(SystemExit, match=r"--export .* would replace --backb"):
      trained(
        *("gmixout", "--train", pacs / "art", "--backbone", mine, *SMALL),
        *("--export", target),
      )
  assert mine.read_bytes() == before


@EXHAUSTIVE  # of one cell, in `harness/test_run.py`
def test_an_export_of_another_run_is_not_taken_for_this_one(
  trained, photos, tmp_path
):
  path = tmp_path / "model.safetensors"
  full = ("full_finetuning", *photos, "--learning-rate", "0.01")
  trained(*full, "--export", path)
  first = path.read_bytes()
  trained("linear_probe", *photos, "--export", path)
  assert path.read_bytes() != first
  record = trained(*full, "--export", path)
  assert path.read_bytes() == first
  assert record["config"]["method"]["name"] == "linear_probe"  # none is added


@EXHAUSTIVE  # `test_backbones.py` exports one and starts from it
def test_an_exported_clip_is_a_backbone(trained, pacs, clip_folder, tmp_path):
  given = ("--train", pacs / "art", *SMALL)
  exported = tmp_path / "tuned"
  trained(
    *("full_finetuning", "--backbone", clip_folder, *given),
    *("--export", exported),
  )
  again = trained("zero_shot", "--backbone", exported, *given)
  assert again["config"]["backbone"] == "tuned"
  head = predictor.load(exported).model.head.kernel[...]
  assert head.shape == (12, 3)


def test_clips_with_other_preprocessing_are_other_tasks(clip_folder, tmp_path):
  other = pathlib.Path(shutil.copytree(clip_folder, tmp_path / "clip"))
  assert backbones.digest(other) == backbones.digest(clip_folder)
  file = other / "preprocessor_config.json"
  found = json.loads(file.read_text()) if file.is_file() else {}
  file.write_text(json.dumps(found | {"image_mean": [0.1, 0.2, 0.3]}))
  assert backbones.digest(other) != backbones.digest(clip_folder)
  # A head, from which runs may start, counts.
  before = backbones.digest(other)
  safetensors.numpy.save_file(
    {"weight": np.zeros(1)}, other / "head.safetensors"
  )
  assert backbones.digest(other) != before


def test_images_of_equal_file_size_are_other_tasks(trained, vit_file, tmp_path):
  rng = np.random.default_rng(0)
  losses = []
  for number in range(2):
    root = tmp_path / str(number) / "train"
    for label, name in enumerate(tiny.CLASSES):
      (root / name).mkdir(parents=True)
      for index in range(4):
        level = 80 * (label if number else 2 - label)
        pixels = level + rng.integers(0, 60, (16, 16, 3))
        image = Image.fromarray(pixels.astype(np.uint8))
        image.save(root / name / f"{index}.bmp")
    record = trained(
      "full_finetuning", "--train", root, "--backbone", vit_file, *SMALL
    )
    losses.append(record["losses"])
  assert losses[0] != losses[1]
  assert len(records.read(tmp_path / "results.jsonl")) == 2


def test_a_line_begins_on_a_line_of_its_own(trained, photos, tmp_path):
  path = tmp_path / "results.jsonl"
  path.write_text('{"hello": 1}')
  trained("linear_probe", *photos)
  assert len(records.read(path)) == 2


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (("--process", "1"), "--process 1 needs --distributed"),
    (("--save-every", "0"), "--save-every must be at least 1 step, got 0"),
    (("--watch-ood", "--eval-every", "1"), "--watch-ood needs OOD images"),
    (("--seed", str(2**70)), "--seed must be from 0 to .* got 118059"),
    (("--image-size", "100000"), "at most 4096, got 100000"),
    (("--learning-rate", "-1"), "rate must be finite and at least 0, got -1"),
    (("--learning-rate", "nan"), "finite and at least 0, got nan"),
    (("--std", "0", "0", "0"), "std above 0, got 0.0 0.0 0.0"),
    (("--export", "/proc/nope/x"), "--export: .* cannot be written to /proc"),
    (("--profile", "/proc/nope"), "--profile: files cannot be written to"),
  ],
)
def test_what_cannot_be_is_refused_by_name(trained, photos, flags, message):
  method = ("full_finetuning", *photos)
  with pytest.raises(SystemExit, match=f"error: .*{message}"):
    trained(*method, *flags)


def test_results_that_cannot_be_written_are_known_before_a_run(
  photos, monkeypatch
):
  monkeypatch.setattr(backbones, "load", lambda *_: pytest.fail("loaded"))
  arguments = ["gmixout", *photos, "--results", "/proc/nope/results.jsonl"]
  with pytest.raises(SystemExit, match="--results: files cannot be written"):
    train.main(train.parse([*map(str, arguments)]))


def test_an_export_replaces_nothing_but_an_export(
  trained, pacs, clip_folder, photos, tmp_path
):
  other, file = tmp_path / "val", tmp_path / "a.csv"
  (other / "cat").mkdir(parents=True)
  file.write_text("mine")
  clip = ("--train", pacs / "art", "--backbone", clip_folder, *SMALL)
  weights = tmp_path / "weights.safetensors"
  safetensors.numpy.save_file({"x": np.zeros(1)}, weights)
  for flags, path in (
    (clip, other), (clip, file), (photos, weights),
  ):  # fmt: skip
    with pytest.raises(
      SystemExit, match=r"--export .* must be new, or an earl"
    ):
      trained("linear_probe", *flags, "--export", path)
  assert [*other.iterdir()] == [other / "cat"]
  assert file.read_text() == "mine"


def test_training_images_are_neither_validation_nor_ood(trained, pacs, photos):
  for flags, message in (
    (("--val", pacs / "art"), r"--val \(.*\) and --train .* share 15 images"),
    (
      ("--ood", f"same={pacs / 'art' / '..' / 'art'}"),
      r"--ood same \(.*\) and --train \(.*\) share 15 images, such as .*png",
    ),
    (
      ("--val", pacs / "photo", "--ood", f"here={pacs / 'photo'}"),
      r"--ood here .* and --val .* reported anyway: leave it out of --ood",
    ),
  ):
    with pytest.raises(SystemExit, match=message):
      trained("full_finetuning", *photos, *flags)


@pytest.mark.parametrize("flag", ["--set", "--seeds"])
def test_a_flag_of_several_values_is_given_once(flag):
  value = "gmixout.sparsity=0.5" if flag == "--set" else "1"
  with pytest.raises(SystemExit, match=f"{flag} is given twice"):
    sweep.parse(["gmixout", flag, value, flag, value])


def test_an_ood_set_may_be_called_as_a_column(trained, pacs, photos, capsys):
  record = trained(
    "linear_probe", *photos, "--ood", f"mean OOD={pacs / 'photo'}"
  )
  assert list(record["metrics"]["ood"]) == ["mean OOD"]
  assert capsys.readouterr().out.count("mean OOD") == 2


def test_a_folder_may_be_called_as_a_method(vit_file):
  config = train.parse(
    [
      *("--train", "full_finetuning", "gmixout", "--weight-decay", "0.1"),
      *("--backbone", str(vit_file)),
    ]
  )
  assert config.training.weight_decay == 0.1
