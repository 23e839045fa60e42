"""timm's vision transformers, in and out."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from gmixout_jax.checkpoint.files import CheckpointError, Path, local_path
from gmixout_jax.clip import names, preprocessing_configs, timm_config, weights
from gmixout_jax.clip.attention import Implementation
from gmixout_jax.clip.class_names import checked
from gmixout_jax.clip.config import Activation, Pool, VisionConfig
from gmixout_jax.clip.preprocessing_configs import Preprocessing
from gmixout_jax.clip.vision import ViT

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
DINOv2's g, G. Of another width a file does not tell them."""


def vit_from_safetensors(
  path: Path,
  *,
  heads: int | None = None,
  image_size: int | None = None,
  num_classes: int | None = None,
  pool: Pool | None = None,
  activation: Activation | None = None,
  eps: float | None = None,
  dtype: DTypeLike = "float32",
  param_dtype: DTypeLike = "float32",
  remat: bool = False,
  attention: Implementation = "xla",
) -> ViT:
  """Loads a ViT with timm's names: augreg, DeiT, DINO, CLIP's image towers.

  Widths, depth, tokens and what parts there are is read off the tensors. What
  they do not tell comes from what `vit_to_safetensors` noted in the file, from
  the arguments, or from timm's defaults for a plain ViT; what these do not
  tell either is an error that names the argument. A folder has it all in its
  config.json: see `clip.load`.

  Args:
    path: The safetensors file.
    heads: Attention heads; by default those of the published ViT of its width
      (see `HEADS`).
    image_size: Another size than the pretrained one; position embeddings are
      interpolated (see `resize_positions`).
    num_classes: None keeps the file's head, if any; 0 drops it; another
      number than the file's puts a head of zeros in its place.
    pool: What the features are made of, see `VisionConfig`; by default the
      class token of a plain ViT. Asked for where the final norm comes after
      pooling (fc_norm), or there is no class token.
    activation: See `VisionConfig`; by default "gelu". Asked for where there is
      a norm before the first block, as in CLIP's towers.
    eps: Added to the variance in every LayerNorm; by default 1e-6, and asked
      for likewise.
    dtype: The type of the computation.
    param_dtype: The type of the parameters.
    remat: Recompute blocks in the backward pass to save memory.
    attention: "xla" or "cudnn"; see `VisionConfig`.

  Returns:
    The model.

  Raises:
    FileNotFoundError: There is no such file.
    CheckpointError: A `ValueError`: the file is a pickle, damaged, or of a
      variant that is not supported; every tensor at fault is listed.
    ValueError: An argument is needed, or not allowed; `path` may be no bucket.

  Example:
    >>> import tempfile
    >>> from flax import nnx
    >>> from gmixout_jax import clip
    >>> config = clip.VisionConfig.vit(
    ...   image_size=16, patch_size=8, width=64, depth=1, heads=1, mlp_width=8
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = f"{folder}/vit.safetensors"
    ...   clip.vit_to_safetensors(clip.ViT(config, rngs=nnx.Rngs(0)), path)
    ...   model = clip.vit_from_safetensors(path, num_classes=7)
    >>> model.config.depth, model.config.patch_size, model.head.kernel.shape
    (1, 8, (64, 7))
  """
  given = {
    "heads": heads,
    "pool": pool,
    "activation": activation,
    "eps": eps,
  }
  tensors = weights.Files([local_path("path", path)])
  return fill(
    tensors,
    dataclasses.replace(
      described(tensors, given),
      dtype=dtype,
      param_dtype=param_dtype,
      remat=remat,
      attention=attention,
    ),
    image_size=image_size,
    num_classes=num_classes,
  )


def described(
  tensors: weights.Files,
  given: Mapping[str, Any],
  raw: Mapping[str, Any] | None = None,
) -> VisionConfig:
  """The config of tensors, by all that tells it.

  Args:
    tensors: Of which names, shapes and notes are read.
    given: Fields that were asked for, which win; None is none.
    raw: The config.json beside them, if there is one, which wins over notes.
  """
  told = timm_config.noted_fields(tensors.metadata)
  if raw is not None:
    pre_norm = "norm_pre.weight" in tensors.shapes
    told |= timm_config.parse(raw, pre_norm=pre_norm)
  asked = {name: value for name, value in given.items() if value is not None}
  return describe(tensors, told | asked)


def fill(
  tensors: weights.Files,
  config: VisionConfig,
  *,
  image_size: int | None = None,
  num_classes: int | None = None,
) -> ViT:
  """The model of a config, from tensors with timm's names.

  Args:
    tensors: Of the file, or of several.
    config: From `describe`.
    image_size: As for `vit_from_safetensors`.
    num_classes: Likewise.
  """
  if image_size is not None:
    config = dataclasses.replace(config, image_size=image_size)
    weights.interpolate(
      tensors, "pos_embed", grid=config.grid, prefix=config.placed
    )
  ignore = ()
  if num_classes is not None and num_classes != config.num_classes:
    config = dataclasses.replace(config, num_classes=num_classes)
    ignore = weights.replace_head(tensors, "head", num_classes, config.width)
  abstract = nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0)))
  return weights.fill(abstract, tensors, _naming(config), ignore=ignore)


def _naming(config: VisionConfig) -> names.Naming:
  return names.TIMM_NORM_POOLED if config.norm_pooled else names.TIMM


def vit_to_safetensors(
  model: ViT,
  path: Path,
  *,
  preprocessing: Preprocessing | None = None,
  class_names: Sequence[str] | None = None,
  dtype: DTypeLike | None = None,
) -> None:
  """Saves a ViT under timm's names; inverse of `vit_from_safetensors`.

  What tensors do not tell (heads, pooling, activation, eps, and what is given
  here) is noted in the file's metadata, which other readers pass over.

  Args:
    model: The model.
    path: The file; it appears whole or not at all. Its folder is made if it
      does not exist.
    preprocessing: How its images are prepared, see `load_preprocessing`; None
      notes nothing.
    class_names: Of the outputs of its head, see `load_class_names`; None notes
      nothing.
    dtype: The type to store; None keeps that of the parameters.

  Raises:
    ValueError: If `path` is the address of a bucket, or there are more or fewer
      names than outputs.

  Example:
    See `vit_from_safetensors`.
  """
  path = local_path("path", path)
  class_names = checked(class_names, model.config.num_classes)
  images = None
  if preprocessing is not None:
    images = preprocessing_configs.to_timm(preprocessing)
  note = timm_config.note(model.config, images=images, class_names=class_names)
  path.parent.mkdir(parents=True, exist_ok=True)
  tensors = weights.collect(model, _naming(model.config), dtype)
  weights.save(tensors, path, note)


def describe(tensors: weights.Files, told: dict[str, Any]) -> VisionConfig:
  """The config of tensors with timm's names.

  Args:
    tensors: Of which names and shapes are read.
    told: Fields that are known otherwise.

  Raises:
    CheckpointError: They are no ViT, or one with parts that are not supported.
    ValueError: Something is not known; it names the argument.
  """
  found = _shape(tensors, told)
  width = found["width"]
  heads = told.get("heads", HEADS.get(width))
  if heads is None:
    raise ValueError(
      f"heads must be given: {tensors.source} is {width} wide, and no published"
      f" ViT of that width tells them; known are {', '.join(map(str, HEADS))}."
    )
  pool = told.get("pool", found["pool"])
  if pool is None:
    why = "has no class token"
    if found["class_token"]:
      why = "normalises after pooling (fc_norm)"
    raise ValueError(
      f"pool must be given, 'mean' or 'max'{' or ' * found['class_token']}"
      f"{repr('class') * found['class_token']}: {tensors.source} {why}, and"
      " tensors do not tell how tokens are pooled."
    )
  usual = {"activation": "gelu", "eps": 1e-6}
  for name in usual:
    if name not in told and found["pre_norm"]:
      raise ValueError(
        f"{name} must be given: {tensors.source} has a norm before the first"
        " block, as CLIP's image towers have, of which some were trained with"
        " quick_gelu and others with gelu, most with eps = 1e-5."
      )
  return VisionConfig(**(usual | found | told | {"heads": heads, "pool": pool}))


def _shape(tensors: weights.Files, told: dict[str, Any]) -> dict[str, Any]:
  """The fields of the config that the tensors' names and shapes tell."""
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
    raise CheckpointError(
      f"{tensors.source} is not a ViT with timm's names:\n  "
      + "\n  ".join(faults)
    )
  width, channels, patch, _ = shapes["patch_embed.proj.weight"]
  blocks = (re.match(r"blocks\.(\d+)\.", name) for name in shapes)
  mlp_width = shapes["blocks.0.mlp.fc2.weight"][1]
  class_token = "cls_token" in shapes
  registers = dict(enumerate(shapes.get("reg_token", ()))).get(1, 0)
  norm_pooled = "fc_norm.weight" in shapes
  pool = "class" if class_token and not norm_pooled else None
  if "attn_pool.latent" in shapes:
    pool = "attention"
  positions, grid = _positions(
    tensors, class_token, registers, told.get("image_size", 0) // patch
  )
  return dict(
    width=width,
    depth=1 + max(int(block[1]) for block in blocks if block),
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
