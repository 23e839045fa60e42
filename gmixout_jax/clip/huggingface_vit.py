"""Hugging Face's ViT and DINOv2, in and out."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from gmixout_jax.checkpoint.files import CheckpointError, replacing
from gmixout_jax.clip import huggingface, names, weights
from gmixout_jax.clip.class_names import checked
from gmixout_jax.clip.config import HOW, VisionConfig
from gmixout_jax.clip.vision import ViT

TYPES = ("vit", "dinov2", "dinov2_with_registers")
"""What config.json calls them."""

_NAMES = {
  "hidden_size": "width",
  "num_hidden_layers": "depth",
  "num_attention_heads": "heads",
  "hidden_act": "activation",
  "layer_norm_eps": "eps",
  "qkv_bias": "qkv_bias",
  "image_size": "image_size",
  "patch_size": "patch_size",
  "num_channels": "channels",
}
_DINOV2_PATCH = 14

# Beside the encoder: a pooler that only pretraining reads, a token for masks.
_UNREAD = (
  "pooler.dense.weight",
  "pooler.dense.bias",
  "embeddings.mask_token",
)


def parse(raw: Mapping[str, Any]) -> VisionConfig:
  """Reads config.json; a field that it leaves out has Hugging Face's default.

  Args:
    raw: The parsed JSON; its `model_type` is one of `TYPES`.

  Raises:
    ValueError: A value is not allowed; it is quoted.

  Example:
    >>> parse({"model_type": "dinov2", "image_size": 518}).layer_scale
    1.0
  """
  dino = raw["model_type"] != "vit"
  found = {ours: raw[name] for name, ours in _NAMES.items() if name in raw}
  if "activation" in found:
    found["activation"] = huggingface.our_activation(found["activation"])
  usual: dict[str, Any] = {"eps": 1e-6 if dino else 1e-12, "num_classes": 0}
  if not dino:
    found["mlp_width"] = raw.get("intermediate_size", 3072)
    return VisionConfig.vit(**usual | found)
  registers = raw.get("num_register_tokens", 4)
  if raw["model_type"] == "dinov2":
    registers = 0
  ratio, width = raw.get("mlp_ratio", 4), found.get("width", 768)
  if not isinstance(ratio, int | float) or not isinstance(width, int):
    raise ValueError(
      f"mlp_ratio and hidden_size must be numbers, got {ratio!r} and {width!r}."
    )
  gated = raw.get("use_swiglu_ffn", False)
  usual |= {
    "patch_size": _DINOV2_PATCH,
    "mlp": "swiglu" if gated else "plain",
    "mlp_width": _gated(width, ratio) if gated else int(width * ratio),
    "layer_scale": raw.get("layerscale_value", 1.0),
    "registers": registers,
    "positions": "class",
  }
  return VisionConfig.vit(**usual | found)


def _gated(width: int, ratio: float) -> int:
  """Hidden features of DINOv2's SwiGLU: two thirds, in eights."""
  return (int(int(width * ratio) * 2 / 3) + 7) // 8 * 8


def load(
  tensors: weights.Files,
  config: VisionConfig,
  *,
  image_size: int | None,
  num_classes: int | None,
) -> ViT:
  """The model of a config, from tensors with Hugging Face's names.

  Args:
    tensors: Of the folder.
    config: From `parse`.
    image_size: See `clip.load`.
    num_classes: Likewise.

  Raises:
    CheckpointError: They do not fit.
  """
  telling = "embeddings.patch_embeddings.projection.weight"
  prefix = next(
    (p for p in ("", "vit.", "dinov2.", "dinov2_with_registers.")
     if p + telling in tensors.shapes),
    None,
  )  # fmt: skip
  if prefix is None:
    weights.refuse_prefix(tensors, telling)
    prefix = ""
  if image_size is not None:
    config = dataclasses.replace(config, image_size=image_size)
    weights.interpolate(
      tensors,
      f"{prefix}embeddings.position_embeddings",
      grid=config.grid,
      prefix=config.placed,
    )
  head, width = tensors.shapes.get("classifier.weight", (0, config.width))
  ignore = tuple(prefix + name for name in _UNREAD)
  if num_classes is None and width != config.width:
    raise CheckpointError(
      f"{tensors.source} has a head of {width} features, the class token and"
      " the mean of the patches, which has no place here: num_classes must be"
      " given, 0 for none or another number for a new one."
    )
  if (num_classes is not None and num_classes != head) or width != config.width:
    head = num_classes or 0
    ignore += weights.replace_head(tensors, "classifier", head, config.width)
  config = dataclasses.replace(config, num_classes=head)
  abstract = weights.shaped(
    lambda: ViT(config, rngs=nnx.Rngs(0)), tensors, config.depth
  )
  return weights.fill(abstract, tensors, _naming(config, prefix), ignore=ignore)


def _naming(config: VisionConfig, prefix: str) -> names.NameMap:
  kind = names.HUGGING_FACE_VIT
  if config.layer_scale is not None:
    kind = names.DINOV2_SWIGLU if config.mlp == "swiglu" else names.DINOV2
  inner = kind.within(prefix)
  head = names.Naming(((r"^head/", r"classifier/"), (r"/kernel$", r"/weight")))
  return lambda path, shape: (head if path.startswith("head/") else inner)(
    path, shape
  )


def save(
  model: ViT,
  folder: pathlib.Path,
  *,
  class_names: Sequence[str] | None = None,
  dtype: DTypeLike | None = None,
) -> None:
  """Writes config.json and model.safetensors.

  Args:
    model: A plain ViT, or one of DINOv2's form.
    folder: It is made if it does not exist.
    class_names: Of the outputs of its head; None numbers them.
    dtype: The type to store; None keeps that of the parameters.

  Raises:
    ValueError: Neither form has a place for something of the model, or there
      are more or fewer names than outputs.
  """
  class_names = checked(class_names, model.config.num_classes)
  raw = format_config(model.config, class_names)  # before anything is written
  folder.mkdir(parents=True, exist_ok=True)
  prefix = "vit." if model.config.num_classes else ""
  tensors = weights.collect(model, _naming(model.config, prefix), dtype)
  weights.save(tensors, folder / "model.safetensors")
  with replacing(folder / "config.json") as temporary:
    temporary.write_text(json.dumps(raw, indent=2) + "\n")


def format_config(
  config: VisionConfig, class_names: Sequence[str] | None = None
) -> dict[str, Any]:
  """Inverse of `parse`; outputs without a name are numbered.

  Raises:
    ValueError: Neither form has a place for it; the field is named.
  """
  raw = {name: getattr(config, ours) for name, ours in _NAMES.items()}
  raw["hidden_act"] = huggingface.their_activation(config.activation)
  if config.layer_scale is None:
    raw |= {
      "architectures": [
        "ViTForImageClassification" if config.num_classes else "ViTModel"
      ],
      "model_type": "vit",
      "intermediate_size": config.mlp_width,
    }
  else:
    gated = config.mlp == "swiglu"
    ratio = config.mlp_width / config.width * (1.5 if gated else 1)
    raw |= {
      "architectures": ["Dinov2Model"],
      "model_type": "dinov2_with_registers" if config.registers else "dinov2",
      "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio,
      "use_swiglu_ffn": gated,
      "layerscale_value": config.layer_scale,
    }
    if config.registers:
      raw["num_register_tokens"] = config.registers
    if config.num_classes:
      raise ValueError(
        "num_classes must be 0 in a DINOv2 of Hugging Face's form, whose head"
        f" reads the patches, too, got {config.num_classes}."
      )
  if config.num_classes:
    labels = class_names or [f"LABEL_{n}" for n in range(config.num_classes)]
    raw["id2label"] = {str(n): label for n, label in enumerate(labels)}
    raw["label2id"] = {label: n for n, label in enumerate(labels)}
  again = parse(raw)
  for name in vars(again):
    ours, read = getattr(config, name), getattr(again, name)
    if name == "positions":
      ours, read = config.placed, again.placed
    if ours != read and name not in ("num_classes", *HOW):
      raise ValueError(
        f"{name} must be {read!r} in a file of Hugging Face's form, got"
        f" {ours!r}."
      )
  return raw
