"""What tensors with timm's names tell of their vision transformer."""

import math
import re
from typing import Any

from gmixout_jax.checkpoint.files import CheckpointError
from gmixout_jax.clip import weights
from gmixout_jax.clip.config import VisionConfig

# How tensors of others begin, who tell the rest in a config beside the file.
_OTHERS = {
  "text_model.": "a CLIP or SigLIP of Hugging Face",
  "transformer.resblocks.": "a CLIP of open_clip",
  "visual.": "a CLIP of open_clip",
  "vision_model.": "an image tower of Hugging Face",
  "embeddings.": "a ViT or DINOv2 of Hugging Face",
  "vit.": "a ViT of Hugging Face",
  "dinov2.": "a DINOv2 of Hugging Face",
  "dinov2_with_registers.": "a DINOv2 of Hugging Face",
}

# timm parts that we would have to leave out, and would then compute nonsense.
_UNSUPPORTED = {
  r"^(dist_token|head_dist\.)": "a distillation token",
  r"^pre_logits\.": "a pre-logits layer",
  r"\.attn\.norm\.": "a norm inside attention",
  r"\.mlp\.norm\.": "a norm inside the MLP",
  r"\.mlp\.fc1_(g|x)\.": "a SwiGLU of three matrices",
  r"\.rel_pos|relative_position": "relative positions",
}

HEADS = {
  192: 3,
  384: 6,
  768: 12,
  1024: 16,
  1152: 16,
  1280: 16,
  1408: 16,
  1536: 24,
  1664: 16,
}
"""Heads of the published ViTs by their width: Ti, S, B, L, So400m, H, g,
DINOv2's g (with SwiGLU), G. Of another width a file does not tell them."""


def describe(tensors: weights.Files, known: dict[str, Any]) -> VisionConfig:
  """The config of tensors with timm's names.

  Args:
    tensors: Of which names and shapes are read.
    known: Fields that are known from elsewhere.

  Raises:
    CheckpointError: They are no ViT, or one with parts that are not supported.
    ValueError: Something is not known; it names the argument.
  """
  found = _shape(tensors, known)
  width = found["width"]
  heads = known.get("heads", HEADS.get(width))
  if "heads" not in known and width == 1536 and found["mlp"] != "swiglu":
    heads = None  # SigLIP 2's giant has 16
  if heads is None:
    raise ValueError(
      f"heads must be given: {tensors.source} is {width} wide, and of published"
      " ViTs none is, or several with different heads; known are"
      f" {', '.join(map(str, HEADS))}."
    )
  pool = known.get("pool", found["pool"])
  if pool is None:
    why = "has no class token"
    if found["class_token"]:
      why = "normalises after pooling (fc_norm)"
    raise ValueError(
      f"pool must be given, 'mean' or 'max'{' or ' * found['class_token']}"
      f"{repr('class') * found['class_token']}: {tensors.source} {why}, and"
      " tensors do not show how tokens are pooled."
    )
  if "activation" not in known and found["pool"] == "attention":
    raise ValueError(
      f"activation must be given: {tensors.source} pools by attention, as"
      " SigLIP's image towers do, of which some were trained with gelu and"
      " others with gelu_tanh."
    )
  usual = {"activation": "gelu", "eps": 1e-6}
  for name in usual:
    if name not in known and found["pre_norm"]:
      raise ValueError(
        f"{name} must be given: {tensors.source} has a norm before the first"
        " block, as CLIP's image towers have, of which some were trained with"
        " quick_gelu and others with gelu, most with eps = 1e-5."
      )
  return VisionConfig(**(usual | found | known | dict(heads=heads, pool=pool)))


def _shape(tensors: weights.Files, known: dict[str, Any]) -> dict[str, Any]:
  """The fields of the config that follow from names and shapes."""
  shapes = tensors.shapes
  unsupported = [
    f"{part}: {name}"
    for pattern, part in _UNSUPPORTED.items()
    for name in sorted(shapes)
    if re.search(pattern, name)
  ]
  if unsupported:
    raise CheckpointError(
      f"{tensors.source} holds what is not supported:\n  "
      + "\n  ".join(unsupported)
    )
  telling = {
    "patch_embed.proj.weight": 4,
    "pos_embed": 3,
    "blocks.0.mlp.fc1.weight": 2,
    "blocks.0.mlp.fc2.weight": 2,
  }
  faults = [
    f"{name}: {'missing' if name not in shapes else list(shapes[name])}"
    for name, rank in telling.items()
    if len(shapes.get(name, ())) != rank
  ]
  if faults:
    weights.refuse_prefix(tensors, "patch_embed.proj.weight")
    for beginning, what in _OTHERS.items():
      if any(name.startswith(beginning) for name in shapes):
        raise CheckpointError(
          f"{tensors.source} has the names of {what}, which is loaded from the"
          " folder that this file and its config.json lie in."
        )
    raise CheckpointError(
      f"{tensors.source} is not a ViT with timm's names:\n  "
      + "\n  ".join(faults)
    )
  width, channels, patch, _ = shapes["patch_embed.proj.weight"]
  blocks = {
    int(found[1])
    for name in shapes
    if (found := re.match(r"blocks\.(\d{1,9})\.", name))
  }
  if (last := max(blocks)) >= len(blocks):
    first = next(n for n in range(last) if n not in blocks)
    raise CheckpointError(
      f"{tensors.source} has blocks.{last}, and no blocks.{first}."
    )
  mlp_width = shapes["blocks.0.mlp.fc2.weight"][1]
  class_token = "cls_token" in shapes
  registers = dict(enumerate(shapes.get("reg_token", ()))).get(1, 0)
  norm_pooled = "fc_norm.weight" in shapes
  pool = "class" if class_token and not norm_pooled else None
  if "attn_pool.latent" in shapes:
    pool = "attention"
  positions, grid = _positions(
    tensors, class_token, registers, known.get("image_size", 0) // patch
  )
  return dict(
    width=width,
    depth=len(blocks),
    mlp_width=mlp_width,
    mlp="swiglu"
    if shapes["blocks.0.mlp.fc1.weight"][0] == 2 * mlp_width
    else "plain",
    qkv_bias="blocks.0.attn.qkv.bias" in shapes,
    qk_norm="blocks.0.attn.q_norm.weight" in shapes,
    layer_scale=1e-5 if "blocks.0.ls1.gamma" in shapes else None,
    image_size=patch * grid,
    patch_size=patch,
    channels=channels,
    pre_norm="norm_pre.weight" in shapes,
    patch_bias="patch_embed.proj.bias" in shapes,
    class_token=class_token,
    registers=registers,
    positions=positions,
    norm_pooled=norm_pooled,
    pool=pool,
    num_classes=shapes.get("head.weight", (0,))[0],
  )


def _positions(
  tensors: weights.Files, class_token: bool, registers: int, grid: int
) -> tuple[str, int]:
  """Which tokens have positions, and how many patches are along a side.

  Args:
    tensors: With the position embeddings.
    class_token: Whether there is one.
    registers: How many.
    grid: Patches along a side, if it is known; else 0.
  """
  rows = tensors.shapes["pos_embed"][1]
  ways = {"all": class_token + registers, "class": int(class_token)}
  fitting = {}
  for name, placed in (ways | {"patches": 0}).items():
    side = math.isqrt(max(rows - placed, 0))
    square = side > 0 and side * side == rows - placed
    fits = square and (not grid or side == grid)
    if fits and (placed, side) not in fitting.values():  # two names of one way
      fitting[name] = (placed, side)
  if len(fitting) == 1:
    ((name, (_, side)),) = fitting.items()
    return name, side
  have = f"{'a' if class_token else 'no'} class token, {registers} registers"
  if fitting:
    raise CheckpointError(
      f"image_size must be known: {tensors.source} has {rows} position"
      f" embeddings and {have}, which may be"
      f" {' or '.join(f'{side} x {side}' for _, side in fitting.values())}"
      " patches; a folder's config.json would tell."
    )
  raise CheckpointError(
    f"{tensors.source} does not fit the model:\n  misshapen: pos_embed is"
    f" {list(tensors.shapes['pos_embed'])}, which is no square of patches"
    f" ({f'{grid} x {grid}' if grid else 'of any size'}), with or without"
    f" positions for other tokens ({have})"
  )
