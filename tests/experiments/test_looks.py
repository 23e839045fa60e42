"""Tests `experiments/looks.py`."""

from experiments import looks


def test_methods_have_readable_names():
  assert looks.title("gmixout") == "GMixout"
  assert looks.title("zero_shot") == "Zero-shot"
  assert looks.title("full_finetuning") == "Full fine-tuning"
  assert looks.title("random_mask") == "Random Mask"
  assert looks.title("linear_probe") == "Linear probe"
  assert looks.title("mixout") == "Mixout"
  assert looks.title("model_stock") == "Model Stock"
  assert looks.title("gmixout+wise_ft") == "GMixout + WiSE-FT"
  assert looks.title("made_up") == "Made up"
