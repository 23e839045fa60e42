"""timm's config.json, and what our files note where there is none."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from gmixout_jax.checkpoint.files import CheckpointError
from gmixout_jax.clip.config import Activation, VisionConfig, one_side

POOLS = {"token": "class", "avg": "mean", "max": "max", "map": "attention"}
"""Ours by timm's `global_pool`."""

_NOTE = "gmixout_jax.vit"
# What tensors do not tell.
_NOTED = ("heads", "pool", "activation", "eps", "image_size", "layer_scale")

# Arguments that tensors tell, that are read here, or that steer training.
_READ = frozenset(
  {
    *("img_size", "patch_size", "in_chans", "num_classes", "global_pool"),
    *("embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "qk_norm"),
    *("init_values", "class_token", "no_embed_class", "reg_tokens", "pre_norm"),
    *("fc_norm", "act_layer", "dynamic_img_size", "strict_img_size"),
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate"),
    *("attn_drop_rate", "drop_path_rate", "weight_init", "fix_init"),
  }
)
# Others, and the values at which they change nothing.
_UNCHANGING: dict[str, tuple[Any, ...]] = {
  "pos_embed": ("learn",),
  "final_norm": (True,),
  "norm_layer": ("layernorm",),
  "mlp_layer": ("mlp", "Mlp", "SwiGLUPacked", "swiglupacked"),
}

# What timm's models have that is neither among their arguments nor in tensors,
# by the `architecture` (model definitions of timm 1.0).
_BY_NAME: tuple[tuple[str, dict[str, Any]], ...] = (
  (r"^vit_(giantopt_\w+_siglip|base_patch16_gap_224)", {"heads": 16}),
  (
    r"^vit_(base_patch32|so400m_patch16|giantopt_patch16)_siglip"
    r"|^vit_large_patch16_siglip_(gap_)?512",
    {"activation": "gelu_tanh"},
  ),
  (r"_clip_\w*quickgelu", {"activation": "quick_gelu"}),
  (r"^vit_|_clip_", {"activation": "gelu"}),
)
_OTHER_BLOCKS = "_rpn_"  # norms after attention and MLP, under the same names

_CLIP = "_clip_"  # timm's models of CLIP's image towers


def note(config: VisionConfig, **more: Any) -> dict[str, str]:
  """Metadata for a file without a config.

  Args:
    config: Of the model.
    **more: `images`, as timm's `pretrained_cfg`, and `class_names`; None is
      nothing.
  """
  fields = {name: getattr(config, name) for name in _NOTED} | more
  fields = {name: value for name, value in fields.items() if value is not None}
  return {_NOTE: json.dumps(fields)}


def noted(metadata: Mapping[str, str], source: str) -> dict[str, Any]:
  """What `note` tells; nothing of a file that is not ours.

  Args:
    metadata: Of the file.
    source: Its name, for the message.

  Raises:
    CheckpointError: If it is damaged.
  """
  try:
    raw = json.loads(metadata.get(_NOTE, "{}"))
    if not isinstance(raw, dict):
      raise ValueError("no object")
  except (ValueError, RecursionError) as error:
    raise CheckpointError(
      f"{source}: the metadata {_NOTE!r} must be a JSON object, got"
      f" {metadata[_NOTE]!r}: {error}."
    ) from None
  return raw


def noted_fields(metadata: Mapping[str, str], source: str) -> dict[str, Any]:
  """The fields of the config among what is noted."""
  raw = noted(metadata, source)
  return {name: raw[name] for name in _NOTED if raw.get(name) is not None}


def parse(raw: Mapping[str, Any], *, pre_norm: bool) -> dict[str, Any]:
  """The fields that timm's config.json has and tensors do not show.

  Args:
    raw: The parsed JSON.
    pre_norm: Whether the tensors have a norm before the first block.

  Raises:
    ValueError: If a value is not allowed, or not supported; it is quoted.

  Example:
    >>> raw = {"architecture": "vit_base_patch16_224", "global_pool": "avg"}
    >>> parse(raw, pre_norm=False)
    {'activation': 'gelu', 'pool': 'mean'}
  """
  args, pretrained = (
    _object(raw, name) for name in ("model_args", "pretrained_cfg")
  )
  for name, value in args.items():
    same = _UNCHANGING.get(name, (False,))
    if name not in _READ and value is not None and value not in same:
      raise ValueError(f"model_args: {name} is not supported, got {value!r}.")
  found: dict[str, Any] = {}
  if (heads := args.get("num_heads")) is not None:
    found["heads"] = heads
  pooled = raw.get("global_pool", args.get("global_pool"))
  if pooled is not None:
    if pooled not in [*POOLS]:
      raise ValueError(
        f"global_pool must be one of {', '.join(map(repr, POOLS))}, got"
        f" {pooled!r}."
      )
    found["pool"] = POOLS[pooled]
  if (scale := args.get("init_values")) is not None:
    found["layer_scale"] = scale
  size = args.get("img_size")
  if size is None and (shape := pretrained.get("input_size")) is not None:
    if not isinstance(shape, list | tuple) or len(shape) != 3:
      raise ValueError(
        "pretrained_cfg: input_size must be channels, height and width, got"
        f" {shape!r}."
      )
    size = shape[1:]
  if size is not None:
    found["image_size"] = one_side("img_size", size)
  name = str(raw.get("architecture", ""))
  if _OTHER_BLOCKS in name:
    raise ValueError(
      f"architecture {name!r} is not supported: its blocks have their norms"
      " after attention and MLP."
    )
  for pattern, fields in _BY_NAME:  # the first that tells counts
    if re.search(pattern, name):
      found = fields | found
  if (activation := args.get("act_layer")) is not None:
    if activation not in get_args(Activation):
      raise ValueError(
        f"act_layer must be one of {', '.join(get_args(Activation))}, got"
        f" {activation!r}."
      )
    found["activation"] = activation
  if pre_norm and _CLIP in name:
    found["eps"] = 1e-5
  return found


def format_config(
  config: VisionConfig,
  images: Mapping[str, Any] | None = None,
  class_names: Sequence[str] | None = None,
) -> dict[str, Any]:
  """Inverse of `parse`, and of what tensors tell, as timm writes it.

  Its name is that of any plain ViT: all that differs is among its arguments.

  Args:
    config: Of the model.
    images: How they are prepared, for `pretrained_cfg`.
    class_names: Of the head, if they are known.
  """
  pools = {ours: theirs for theirs, ours in POOLS.items()}
  size = config.image_size
  args = {
    "img_size": size,
    "patch_size": config.patch_size,
    "in_chans": config.channels,
    "embed_dim": config.width,
    "depth": config.depth,
    "num_heads": config.heads,
    "mlp_ratio": config.mlp_width
    * (2 if config.mlp == "swiglu" else 1)
    / config.width,
    "qkv_bias": config.qkv_bias,
    "qk_norm": config.qk_norm,
    "init_values": config.layer_scale,
    "class_token": config.class_token,
    "reg_tokens": config.registers,
    "no_embed_class": config.positions == "patches",
    "pre_norm": config.pre_norm,
    "fc_norm": config.norm_pooled,
    "act_layer": config.activation,
  }
  raw: dict[str, Any] = {
    "architecture": "vit_base_patch16_224",
    "num_classes": config.num_classes,
    "global_pool": pools[config.pool],
    "model_args": args,
    "pretrained_cfg": dict(images or {})
    | {"input_size": [config.channels, size, size]},
  }
  if class_names is not None:
    raw["label_names"] = list(class_names)
  return raw


def _object(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  found = raw.get(name)
  found = {} if found is None else found
  if not isinstance(found, Mapping):
    raise ValueError(f"{name} must be an object, got {found!r}.")
  return found
