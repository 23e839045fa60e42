"""Tests `gmixout_jax/clip/config.py` and `huggingface.py`."""

import dataclasses
import re

import pytest

from gmixout_jax import clip
from gmixout_jax.clip import huggingface

SMALL_VISION = dict(image_size=16, patch_size=8, width=12, heads=2)


def test_absent_fields_take_hugging_face_defaults():
  """Their default is CLIP ViT-B/32, checked against what it is known to be."""
  config = huggingface.parse_config({})
  vision, text = config.vision, config.text
  assert (vision.width, vision.mlp_width, vision.depth) == (768, 3072, 12)
  assert (vision.heads, vision.patch_size, vision.image_size) == (12, 32, 224)
  assert (text.width, text.mlp_width, text.depth) == (512, 2048, 12)
  assert (text.heads, text.vocab_size, text.context_length) == (8, 49408, 77)
  assert (text.bos_token_id, text.eos_token_id) == (49406, 49407)
  assert text.pad_token_id == 1
  assert {vision.activation, text.activation} == {"quick_gelu"}
  assert {vision.eps, text.eps} == {1e-5}
  assert (config.projection_dim, config.logit_scale_init) == (512, 2.6592)


def test_parse_undoes_format():
  config = clip.CLIPConfig(
    vision=clip.VisionConfig(depth=3, activation="gelu", **SMALL_VISION),
    text=clip.TextConfig(vocab_size=10, eos_token_id=9, eps=1e-3, depth=2),
    projection_dim=24,
    logit_scale_init=1.5,
  )
  assert huggingface.parse_config(huggingface.format_config(config)) == config


def test_old_second_copy_wins():
  raw = {
    "text_config": {"hidden_size": 64},
    "text_config_dict": {"hidden_size": 128},
    "vision_config_dict": None,
  }
  assert huggingface.parse_config(raw).text.width == 128


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(activation="relu"), "'gelu', 'gelu_tanh'), got 'relu'"),
    (dict(heads=5), "width = 12 and heads = 5"),
    (dict(patch_size=5), "image_size = 16 and patch_size = 5"),
    (dict(depth=0), "depth must be a positive integer, got 0"),
    (dict(depth=2.0), "depth must be a positive integer, got 2.0"),
    (dict(eps=-1.0), "eps must be a positive number, got -1.0"),
    (dict(num_classes=-1), "num_classes must be an integer of at least 0"),
    (dict(dtype="int8"), "dtype must be a float type, got 'int8'"),
    (dict(param_dtype="x"), "param_dtype must be a float type, got 'x'"),
  ],
)
def test_bad_values_are_quoted(change, message):
  config = clip.VisionConfig(**SMALL_VISION)
  with pytest.raises(ValueError, match=re.escape(message)):
    dataclasses.replace(config, **change)


def test_bad_values_name_their_section():
  raw = {"vision_config": {"hidden_act": "relu"}}
  with pytest.raises(ValueError, match=r"vision_config: activation must be"):
    huggingface.parse_config(raw)
  with pytest.raises(ValueError, match=r"text_config must be an object"):
    huggingface.parse_config({"text_config": 3})
  with pytest.raises(ValueError, match=r"must be 'clip', .*, got 'blip'"):
    huggingface.parse_config({"model_type": "blip"})
  raw = {"text_config": {"eos_token_id": 49408}}
  with pytest.raises(ValueError, match=r"vocab_size = 49408, got 49408"):
    huggingface.parse_config(raw)


def test_clip_refuses_an_image_tower_with_a_head():
  with pytest.raises(ValueError, match=r"num_classes must be 0, got 1000"):
    clip.CLIPConfig(vision=clip.VisionConfig.vit())


def test_a_plain_vit_as_image_tower_is_no_model_type_of_transformers():
  vision = clip.VisionConfig.vit(num_classes=0)
  raw = huggingface.format_config(clip.CLIPConfig(vision=vision))
  assert raw["model_type"] == "clip_with_plain_vit"
  assert "architectures" not in raw
  assert huggingface.parse_config(raw).vision == vision
  # Of a "clip" these fields mean nothing, as to transformers.
  form = huggingface.parse_config(raw | {"model_type": "clip"}).vision
  assert form.pre_norm
  assert not form.patch_bias
