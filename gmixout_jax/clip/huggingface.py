"""Hugging Face's config.json, read into our configs and written back.

A CLIP whose image tower is a plain ViT (no first norm, a patch bias) has no
config there: `transformers` would run it with a norm of its own invention. Its
file names another model type, which `transformers` refuses, and the form of the
tower. A SigLIP is a CLIP of other towers, with a bias on its logits.
"""

import dataclasses
import json
import pathlib
import reprlib
from collections.abc import Mapping
from typing import Any

from gmixout_jax.clip.config import (
  HOW,
  CLIPConfig,
  TextConfig,
  VisionConfig,
)

_TOWER = {
  "hidden_size": "width",
  "num_hidden_layers": "depth",
  "num_attention_heads": "heads",
  "intermediate_size": "mlp_width",
  "hidden_act": "activation",
  "layer_norm_eps": "eps",
}
_VISION = _TOWER | {
  "image_size": "image_size",
  "patch_size": "patch_size",
  "num_channels": "channels",
}
# The form of image tower that "clip" stands for; another one is spelled out.
_CLIP_FORM = {"pre_norm": True, "patch_bias": False}
_FORM = {
  name: name
  for name in (
    *(*_CLIP_FORM, "class_token", "registers", "positions", "pool"),
    *("norm_pooled", "mlp", "qkv_bias", "qk_norm", "layer_scale"),
  )
}
OTHER_FORM = "clip_with_plain_vit"
_SIGLIP = "siglip"
TYPES = ("clip", OTHER_FORM, _SIGLIP)
"""What config.json calls the models that are read here."""

_TEXT = _TOWER | {
  "vocab_size": "vocab_size",
  "max_position_embeddings": "context_length",
  "bos_token_id": "bos_token_id",
  "eos_token_id": "eos_token_id",
  "pad_token_id": "pad_token_id",
}
_SIGLIP_VISION = {
  "patch_size": 16,
  "pre_norm": False,
  "patch_bias": True,
  "class_token": False,
  "pool": "attention",
}
_SIGLIP_TOWER = {"activation": "gelu_tanh", "eps": 1e-6}
_SIGLIP_TEXT = {
  "width": 768,
  "heads": 12,
  "mlp_width": 3072,
  "vocab_size": 32000,
  "context_length": 64,
  "causal": False,
  "pool": "last",
  "projection_bias": True,
}

_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh"}


def our_activation(name: Any) -> Any:
  """Ours by Hugging Face's name; another value unchanged, to be checked."""
  return _ACTIVATIONS.get(name, name) if isinstance(name, str) else name


def their_activation(name: str) -> str:
  """Inverse of `our_activation`."""
  return {ours: theirs for theirs, ours in _ACTIVATIONS.items()}.get(name, name)


def read_object(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON file that holds an object.

  Args:
    path: The file.

  Returns:
    The parsed JSON.

  Raises:
    ValueError: The file is not JSON, or holds something else; it is named.
  """
  try:
    raw = json.loads(path.read_text())
  except (ValueError, RecursionError) as error:  # the latter: nested too deep
    raise ValueError(f"{path}: expected JSON: {error}.") from None
  if not isinstance(raw, dict):
    raise ValueError(
      f"{path}: expected an object, got {type(raw).__name__}"
      f" {reprlib.repr(raw)}."
    )
  return raw


def section(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  """A tower's part of config.json.

  Args:
    raw: The parsed JSON.
    name: "text_config" or "vision_config".

  Returns:
    The part, empty if it is absent.

  Raises:
    ValueError: It is no object.
  """
  # The oldest configs carry a second copy under this name, and it wins.
  copy = f"{name}_dict"
  name = name if raw.get(copy) is None else copy
  content = raw.get(name)
  content = {} if content is None else content
  if not isinstance(content, Mapping):
    raise ValueError(f"{name} must be an object, got {content!r}.")
  return content


def parse_config(raw: Mapping[str, Any], **fields: Any) -> CLIPConfig:
  """Reads Hugging Face's config.json of a CLIP model.

  Hugging Face leaves out what equals its defaults, so an absent field takes
  our default, which is the same. Unknown fields steer training only, and are
  ignored.

  Args:
    raw: The parsed JSON.
    **fields: `dtype`, `param_dtype`, `remat` and `attention` of both towers.

  Returns:
    The config.

  Raises:
    ValueError: This is not a CLIP model, or a value is not allowed.

  Example:
    >>> from gmixout_jax.clip import huggingface
    >>> raw = {"text_config": {"hidden_size": 64}}
    >>> huggingface.parse_config(raw).text.width
    64
  """
  model_type = raw.get("model_type", "clip")
  if model_type not in TYPES:
    raise ValueError(
      f"model_type must be 'clip', {OTHER_FORM!r} or {_SIGLIP!r}, got"
      f" {model_type!r}; clip.load reads vision transformers, too."
    )
  vision_names = _VISION | _FORM if model_type == OTHER_FORM else _VISION

  def tower(make, name, names, **usual):
    content = section(raw, name)
    known = {names[k]: v for k, v in content.items() if k in names}
    if "activation" in known:
      known["activation"] = our_activation(known["activation"])
    try:
      return make(**(usual | known | fields))
    except ValueError as error:
      raise ValueError(f"{name}: {error}") from None

  if model_type == _SIGLIP:
    if not section(raw, "vision_config").get("vision_use_head", True):
      raise ValueError(
        "vision_config: vision_use_head must be true, got False: without its"
        " attention pooling the image tower has no features."
      )
    usual = _SIGLIP_TOWER
    vision = tower(
      VisionConfig, "vision_config", _VISION, **usual, **_SIGLIP_VISION
    )
    text = tower(TextConfig, "text_config", _TEXT, **usual, **_SIGLIP_TEXT)
    size = section(raw, "text_config").get("projection_size", text.width)
    return CLIPConfig(
      vision=vision,
      text=text,
      projection_dim=size,
      vision_projection=False,
      logit_scale_init=0.0,
      logit_bias_init=0.0,
    )
  return CLIPConfig(
    vision=tower(VisionConfig, "vision_config", vision_names),
    text=tower(TextConfig, "text_config", _TEXT),
    projection_dim=raw.get("projection_dim", 512),
    logit_scale_init=raw.get("logit_scale_init_value", 2.6592),
  )


def format_config(config: CLIPConfig) -> dict[str, Any]:
  """Inverse of `parse_config`, with every field spelled out.

  Raises:
    ValueError: Hugging Face has no form for it, nor have we.
  """

  def tower(part, names, model_type):
    content = {key: getattr(part, name) for key, name in names.items()}
    return content | {
      "hidden_act": their_activation(content["hidden_act"]),
      "model_type": model_type,
      "projection_dim": config.projection_dim,
    }

  if not config.vision_projection:
    _check_form(config.vision, _SIGLIP_VISION, *_VISION.values())
    _check_form(config.text, _SIGLIP_TEXT, *_TEXT.values())
    return {
      "architectures": ["SiglipModel"],
      "model_type": _SIGLIP,
      "vision_config": tower(config.vision, _VISION, "siglip_vision_model")
      | {"vision_use_head": True},
      "text_config": tower(config.text, _TEXT, "siglip_text_model")
      | {"projection_size": config.projection_dim},
    }
  _check_form(config.text, {}, *_TEXT.values())
  _check_form(config.vision, {}, *_VISION.values(), *_FORM)
  usual = VisionConfig()
  if all(getattr(config.vision, n) == getattr(usual, n) for n in _FORM):
    head = {"architectures": ["CLIPModel"], "model_type": "clip"}
    vision_names = _VISION
  else:
    head, vision_names = {"model_type": OTHER_FORM}, _VISION | _FORM
  return {
    **head,
    "projection_dim": config.projection_dim,
    "logit_scale_init_value": config.logit_scale_init,
    "vision_config": tower(config.vision, vision_names, "clip_vision_model"),
    "text_config": tower(config.text, _TEXT, "clip_text_model"),
  }


def _check_form(
  config: VisionConfig | TextConfig, form: Mapping[str, Any], *free: str
) -> None:
  """Refuses a tower that the file would describe as another one.

  Args:
    config: Of the tower.
    form: Fields that are so, and stand in no file; all others are the defaults.
    *free: Fields that the file tells.
  """
  fixed = {
    field.name: form.get(field.name, field.default)
    for field in dataclasses.fields(config)
    if field.name not in (*free, *HOW)
  }
  for name, wanted in fixed.items():
    if (value := getattr(config, name)) != wanted:
      raise ValueError(
        f"{type(config).__name__}.{name} must be {wanted!r} in a file of"
        f" Hugging Face's form, got {value!r}."
      )
