"""Tests `gmixout_jax/clip/images.py`."""

import json
import re

import numpy as np
import pytest

from gmixout_jax import clip


def test_bytes_and_floats_agree_with_float64(rng):
  stored = rng.integers(0, 256, size=(2, 4, 5, 3), dtype=np.uint8)
  expected = (stored / 255 - clip.CLIP_MEAN) / clip.CLIP_STD
  np.testing.assert_allclose(clip.preprocess(stored), expected, atol=1e-5)
  floats = (stored / 255).astype(np.float32)
  np.testing.assert_allclose(clip.preprocess(floats), expected, atol=1e-5)
  half = clip.preprocess(stored, mean=clip.HALF, std=clip.HALF)
  np.testing.assert_allclose(half, stored / 127.5 - 1, atol=1e-5)


@pytest.mark.parametrize(
  ("images", "message"),
  [
    (np.zeros((1, 3, 4, 4), np.uint8), "got [1, 3, 4, 4], 3 and 3 values"),
    (np.zeros((4, 4, 3), np.int64), "must be uint8 or floats, got int64"),
    (np.full((4, 4, 3), 255.0), "must lie in [0, 1], got [255.0, 255.0]"),
  ],
)
def test_wrong_images_are_refused(images, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    clip.preprocess(images)


def test_normalisation_is_kept_in_the_file_that_hugging_face_reads(tmp_path):
  assert clip.load_normalization(tmp_path) == (clip.CLIP_MEAN, clip.CLIP_STD)
  clip.save_normalization(tmp_path, clip.IMAGENET_MEAN, clip.IMAGENET_STD)
  found = clip.load_normalization(tmp_path)
  assert found == (clip.IMAGENET_MEAN, clip.IMAGENET_STD)
  path = tmp_path / "preprocessor_config.json"
  assert json.loads(path.read_text())["image_std"] == [0.229, 0.224, 0.225]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "expected JSON"),
    ("[]", "expected an object"),
    ('{"image_mean": [0.5]}', "image_std must be a list of numbers, got None"),
    ('{"image_mean": [0.5], "image_std": [1, 1]}', "for each of image_mean"),
  ],
)
def test_a_damaged_normalisation_is_named(tmp_path, text, message):
  path = tmp_path / "preprocessor_config.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=f"preprocessor_config.json.*{message}"):
    clip.load_normalization(tmp_path)
