"""Hugging Face's config.json, read into our configs and written back."""

from collections.abc import Mapping
from typing import Any

from gmixout_jax.clip.config import CLIPConfig, TextConfig, VisionConfig

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
_TEXT = _TOWER | {
  "vocab_size": "vocab_size",
  "max_position_embeddings": "context_length",
  "bos_token_id": "bos_token_id",
  "eos_token_id": "eos_token_id",
  "pad_token_id": "pad_token_id",
}


def parse_config(raw: Mapping[str, Any], **fields: Any) -> CLIPConfig:
  """Reads Hugging Face's config.json of a CLIP model.

  Hugging Face leaves out what equals its defaults, so an absent field takes
  our default, which is the same. Unknown fields steer training only, and are
  ignored.

  Args:
    raw: The parsed JSON.
    **fields: `dtype`, `param_dtype` and `remat` of both towers.

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
  if raw.get("model_type", "clip") != "clip":
    raise ValueError(f"model_type must be 'clip', got {raw['model_type']!r}.")

  def tower(make, section, names):
    # The oldest configs carry a second copy under this name, and it wins.
    content = raw.get(f"{section}_dict")
    content = raw.get(section) if content is None else content
    content = {} if content is None else content
    if not isinstance(content, Mapping):
      raise ValueError(f"{section} must be an object, got {content!r}.")
    known = {names[k]: v for k, v in content.items() if k in names}
    try:
      return make(**(known | fields))
    except ValueError as error:
      raise ValueError(f"{section}: {error}") from None

  return CLIPConfig(
    vision=tower(VisionConfig, "vision_config", _VISION),
    text=tower(TextConfig, "text_config", _TEXT),
    projection_dim=raw.get("projection_dim", 512),
    logit_scale_init=raw.get("logit_scale_init_value", 2.6592),
  )


def format_config(config: CLIPConfig) -> dict[str, Any]:
  """Inverse of `parse_config`, with every field spelled out."""

  def tower(part, names, model_type):
    content = {key: getattr(part, name) for key, name in names.items()}
    return content | {
      "model_type": model_type,
      "projection_dim": config.projection_dim,
    }

  return {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": config.projection_dim,
    "logit_scale_init_value": config.logit_scale_init,
    "vision_config": tower(config.vision, _VISION, "clip_vision_model"),
    "text_config": tower(config.text, _TEXT, "clip_text_model"),
  }
