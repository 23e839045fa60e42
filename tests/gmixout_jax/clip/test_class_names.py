"""Tests `gmixout_jax/clip/class_names.py`, and notes of images in files."""

import dataclasses
import json

import pytest
import safetensors.numpy
from flax import nnx

from gmixout_jax import clip

NAMES = ("Größe", "a b", "猫")
CONFIG = clip.VisionConfig.vit(
  image_size=16, patch_size=8, width=64, depth=1, heads=1, mlp_width=8,
  eps=1e-12, num_classes=3,
)  # fmt: skip

TEXT = clip.TextConfig(
  vocab_size=9, eos_token_id=8, width=8, depth=1, heads=1, mlp_width=8
)


@pytest.fixture(scope="module")
def vit():
  return clip.ViT(CONFIG, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
  ("name", "form"),
  [("x.safetensors", None), ("folder", "timm"), ("folder", "huggingface")],
)
@pytest.mark.parametrize(
  "prepared",
  [
    clip.Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 16, "squeeze"),
    clip.Preprocessing(
      clip.HALF, clip.HALF, 16, "crop", 20 / 16, interpolation="bilinear"
    ),
  ],
)
def test_what_is_written_is_read_again(tmp_path, vit, name, form, prepared):
  path = tmp_path / name
  clip.save(vit, path, form=form, preprocessing=prepared, class_names=NAMES)
  assert clip.load_class_names(path) == NAMES
  assert clip.load_preprocessing(path) == prepared
  assert clip.load_normalization(path) == (prepared.mean, prepared.std)
  assert clip.load(path).config == CONFIG
  clip.save(vit, path, form=form)  # without them
  assert clip.load_class_names(path) is None


def test_names_are_as_many_as_outputs(tmp_path, vit):
  for form in ("timm", "huggingface"):
    for names in (NAMES[:2], "abc"):
      with pytest.raises(ValueError, match="one name for each of 3 outputs"):
        clip.save(vit, tmp_path / "x", form=form, class_names=names)
  assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
  ("raw", "wanted"),
  [
    ({"id2label": {"1": "b", "0": "a"}}, ("a", "b")),
    ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, None),
    ({"id2label": {}}, None),
    ({"label_names": ["a", "b"]}, ("a", "b")),
    ({}, None),
  ],
)
def test_names_of_others_are_read(tmp_path, raw, wanted):
  (tmp_path / "config.json").write_text(json.dumps(raw))
  assert clip.load_class_names(tmp_path) == (wanted or None)


@pytest.mark.parametrize(
  ("raw", "message"),
  [
    ({"id2label": {"1": "b"}}, "id2label must number names from 0"),
    ({"id2label": ["a"]}, "id2label must number names from 0"),
    ({"id2label": {"0": 3}}, "id2label must be a list of names"),
    ({"label_names": "ab"}, "label_names must be a list of names, got 'ab'"),
  ],
)
def test_damaged_names_are_refused(tmp_path, raw, message):
  (tmp_path / "config.json").write_text(json.dumps(raw))
  with pytest.raises(ValueError, match=f"config.json: {message}"):
    clip.load_class_names(tmp_path)


@pytest.mark.parametrize(
  ("note", "message"),
  [
    ("[1]", "must be a JSON object"),
    ("{", "must be a JSON object"),
    ('{"images": 3}', "images must be an object, got 3"),
    ('{"images": {"mean": [0.5], "std": [0]}}', "std must hold one positive"),
  ],
)
def test_a_damaged_note_is_refused(tmp_path, vit, note, message):
  path = tmp_path / "x.safetensors"
  clip.save(vit, path)
  tensors = safetensors.numpy.load_file(path)
  safetensors.numpy.save_file(tensors, path, {"gmixout_jax.vit": note})
  with pytest.raises(ValueError, match=message):
    clip.load_preprocessing(path)


@pytest.mark.parametrize(
  ("name", "whose"),
  [
    ("text_model.x", "a CLIP or SigLIP of Hugging Face"),
    ("visual.x", "a CLIP of open_clip"),
    ("vit.embeddings.x", "a ViT of Hugging Face"),
  ],
)
def test_a_file_that_needs_its_folder_says_so(tmp_path, rng, name, whose):
  path = tmp_path / "model.safetensors"
  safetensors.numpy.save_file({name: rng.standard_normal(3)}, path)
  with pytest.raises(clip.CheckpointError, match=f"names of {whose}.*folder"):
    clip.load(path)
  with pytest.raises(FileNotFoundError, match="is a file, and a CLIP is a fol"):
    clip.from_pretrained(path)
  with pytest.raises(FileNotFoundError, match=r"a folder, which clip\.load"):
    clip.vit_from_safetensors(tmp_path)


@pytest.mark.parametrize("form", ["hugging_face", "open_clip", "TIMM"])
def test_there_are_no_other_forms(tmp_path, vit, form):
  tower = dataclasses.replace(CONFIG, num_classes=0)
  config = clip.CLIPConfig(vision=tower, text=TEXT, projection_dim=8)
  for model in (vit, clip.CLIP(config, rngs=nnx.Rngs(0))):
    with pytest.raises(ValueError, match=f"must be one of .*, got '{form}'"):
      clip.save(model, tmp_path / "out", form=form)
