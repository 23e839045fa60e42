"""Tests what is read of how a model's images were prepared."""

import json

import numpy as np
import pytest

from gmixout_jax import clip

CROPPED = {
  "do_resize": True, "size": {"shortest_edge": 224}, "resample": 3,
  "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
  "do_rescale": True, "rescale_factor": 0.00392156862745098,
  "do_normalize": True, "image_mean": [0.1, 0.2, 0.3],
  "image_std": [0.4, 0.5, 0.6], "do_convert_rgb": True,
}  # fmt: skip
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def read(folder, name="preprocessor_config.json", **raw):
  (folder / name).write_text(json.dumps(raw))
  return clip.load_preprocessing(folder)


def test_a_folder_that_says_nothing(tmp_path):
  assert clip.load_preprocessing(tmp_path) is None
  assert clip.load_normalization(tmp_path) == (clip.CLIP_MEAN, clip.CLIP_STD)
  (tmp_path / "config.json").write_text('{"model_type": "clip"}')
  assert clip.load_normalization(tmp_path) == (clip.CLIP_MEAN, clip.CLIP_STD)
  for other in ("vit", "dinov2", "siglip"):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": other}))
    with pytest.raises(ValueError, match=r"^mean and std must be given: "):
      clip.load_normalization(tmp_path)
  (tmp_path / "config.json").write_text('{"architecture": "vit_base"}')
  with pytest.raises(ValueError, match=r"^mean and std must be given: "):
    clip.load_normalization(tmp_path)


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({}, (224, "crop", 1.0, "bicubic")),
    (
      {"size": {"shortest_edge": 256}, "resample": 2},
      (224, "crop", 256 / 224, "bilinear"),
    ),
    ({"size": 224, "crop_size": 224}, (224, "crop", 1.0, "bicubic")),
    (
      {"size": {"height": 384, "width": 384}, "do_center_crop": False,
       "crop_size": None, "resample": 2},
      (384, "squeeze", 1.0, "bilinear"),
    ),
    (
      {"size": 224, "do_center_crop": False, "crop_size": None,
       "image_processor_type": "ViTImageProcessor"},
      (224, "squeeze", 1.0, "bicubic"),
    ),
    ({"size": None}, (None, "crop", 1.0, "bicubic")),
  ],
)  # fmt: skip
def test_hugging_faces_sizes(tmp_path, changes, expected):
  found = read(tmp_path, **CROPPED | changes)
  assert (found.mean, found.std) == (MEAN, STD)
  assert (found.size, found.resize, found.zoom, found.interpolation) == expected


def test_values_nested_in_the_processors_file(tmp_path):
  (tmp_path / "preprocessor_config.json").unlink(missing_ok=True)
  found = read(
    tmp_path, "processor_config.json", processor_class="CLIPProcessor",
    image_processor=CROPPED,
  )  # fmt: skip
  assert (found.mean, found.std, found.size) == (MEAN, STD, 224)
  # An older file of that name says nothing of images.
  assert read(tmp_path, "processor_config.json", processor_class="X") is None


@pytest.mark.parametrize(
  ("changes", "of_byte"),
  [
    ({"do_normalize": False}, lambda x: x / 255),
    ({"do_rescale": False}, lambda x: (x - 0.2) / 0.5),
    ({"rescale_factor": 1 / 127.5}, lambda x: (x / 127.5 - 0.2) / 0.5),
    ({"do_normalize": False, "do_rescale": False}, lambda x: x),
    ({}, lambda x: (x / 255 - 0.2) / 0.5),
  ],
)
def test_steps_that_are_left_out(tmp_path, changes, of_byte):
  """The middle channel, against what the processor computes of a byte."""
  found = read(tmp_path, **CROPPED | changes)
  image = np.full((1, 1, 1, 3), 200, np.uint8)
  ours = clip.preprocess(image, mean=found.mean, std=found.std)
  np.testing.assert_allclose(ours[0, 0, 0, 1], of_byte(200.0), rtol=1e-5)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"do_pad": True}, "do_pad is not supported, got True"),
    ({"do_flip_channel_order": True}, "do_flip_channel_order is not supported"),
    ({"rescale_offset": True}, "rescale_offset is not supported"),
    ({"crop_pct": 0.9}, r"crop_pct is not supported, got 0\.9"),
    ({"do_resize": False}, "do_resize must be true, got False"),
    ({"do_center_crop": False}, "size must be a square, or a shortest edge"),
    ({"size": {"longest_edge": 224}}, "size must be a square, or a shortest"),
    (
      {"size": {"height": 224, "width": 112}},
      "size must be a square in",
    ),
    ({"crop_size": 300}, "crop_size must be at most 224, got 300"),
    ({"resample": 0}, r"resample must be one of \[2, 3\], got 0"),
    ({"rescale_factor": 0}, "rescale_factor must be a positive number, got 0"),
    ({"image_std": [0.4, 0.5, 0]}, "image_std must hold one positive number"),
    ({"image_mean": "half"}, "image_mean must be a list of numbers"),
    ({"image_mean": [True, 0, 0]}, "image_mean must be a list of numbers"),
    ({"image_mean": [0.5]}, "image_std must hold one positive number for each"),
  ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path, changes, message):
  with pytest.raises(ValueError, match=rf"preprocessor_config.json: {message}"):
    read(tmp_path, **CROPPED | changes)


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({}, (0.5, None, "crop", None)),
    ({"resize_mode": "squash", "size": 336}, (0.5, 336, "squeeze", None)),
    (
      {"interpolation": "bilinear", "size": [224, 224]},
      (0.5, 224, "crop", "bilinear"),
    ),
    ({"interpolation": "random", "mean": None}, None),
  ],
)
def test_open_clips_form(tmp_path, changes, expected):
  raw = {"mean": [0.5] * 3, "std": [0.25] * 3} | changes
  if expected is None:
    with pytest.raises(ValueError, match="mean must be a list of numbers"):
      read(tmp_path, "open_clip_config.json", preprocess_cfg=raw)
    return
  found = read(tmp_path, "open_clip_config.json", preprocess_cfg=raw)
  assert (found.mean[0], found.size, found.resize, found.interpolation) == (
    expected
  )
  longest = raw | {"resize_mode": "longest"}
  with pytest.raises(ValueError, match=r"resize_mode must be .* got 'longest'"):
    read(tmp_path, "open_clip_config.json", preprocess_cfg=longest)


def test_timms_form(tmp_path):
  raw = {
    "input_size": [3, 224, 224], "mean": MEAN, "std": STD, "crop_pct": 0.9,
    "interpolation": "bicubic",
  }  # fmt: skip
  found = read(tmp_path, "config.json", architecture="x", pretrained_cfg=raw)
  assert found == clip.Preprocessing(
    MEAN, STD, 224, "crop", 248 / 224, "bicubic"
  )
  squashed = raw | {"crop_mode": "squash", "crop_pct": 1.0}
  found = read(tmp_path, "config.json", pretrained_cfg=squashed)
  assert (found.resize, found.zoom) == ("squeeze", 1.0)
  usual = {k: v for k, v in raw.items() if k != "crop_pct"}
  found = read(tmp_path, "config.json", pretrained_cfg=usual)
  assert found.zoom == pytest.approx(1 / 0.875)
  border = raw | {"crop_mode": "border"}
  with pytest.raises(ValueError, match=r"crop_mode must be .*, got 'border'"):
    read(tmp_path, "config.json", pretrained_cfg=border)
  untold = {"input_size": [3, 224, 224]}
  assert read(tmp_path, "config.json", pretrained_cfg=untold) is None
