"""Tests `experiments/plots.py`."""

import numpy as np
import pytest
from PIL import Image

from experiments import plots


def run(method, seed, id_accuracy, ood_accuracy):
  return {
    "config": {"method": {"name": method}},
    "seed": seed,
    "metrics": {"id": id_accuracy, "mean_ood": ood_accuracy},
  }


def test_the_picture_shows_every_method(tmp_path):
  records = [
    run("zero_shot", 0, 0.7, 0.6),
    run("full_finetuning", 0, 0.97, 0.5),
    run("full_finetuning", 1, 0.98, 0.52),
    run("gmixout", 0, 0.96, 0.6),
    run("a_method_of_tomorrow", 0, 0.95, 0.55),
  ]
  path = tmp_path / "new" / "picture.png"
  plots.ood_against_id(records, path, heading="A title")
  pixels = np.asarray(Image.open(path).convert("RGB"))
  assert pixels.shape[0] > 500
  for colour in ("#D55E00", "#009E73", "#56B4E9", "#000000"):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    assert (pixels == rgb).all(-1).sum() > 20, colour


def test_methods_have_readable_names():
  assert plots.title("gmixout") == "GMixout"
  assert plots.title("zero_shot") == "Zero-shot"
  assert plots.title("model_stock") == "Model Stock"
  assert plots.title("gmixout+wise_ft") == "GMixout + WiSE-FT"
  assert plots.title("made_up") == "Made up"


def test_no_records_are_refused(tmp_path):
  with pytest.raises(ValueError, match="no records"):
    plots.ood_against_id([], tmp_path / "picture.png")
