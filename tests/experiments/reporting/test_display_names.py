"""Tests `experiments/reporting/display_names.py`."""

from experiments.reporting import display_names


def test_methods_have_readable_names():
  assert display_names.title("gmixout") == "GMixout"
  assert display_names.title("zero_shot") == "Zero-shot"
  assert display_names.title("full_finetuning") == "Full fine-tuning"
  assert display_names.title("random_mask") == "Random Mask"
  assert display_names.title("linear_probe") == "Linear probe"
  assert display_names.title("mixout") == "Mixout"
  assert display_names.title("model_stock") == "Model Stock"
  assert display_names.title("gmixout+wise_ft") == "GMixout + WiSE-FT"
  assert display_names.title("made_up") == "Made up"
