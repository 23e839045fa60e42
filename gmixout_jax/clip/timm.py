"""timm's vision transformers, in and out."""

import dataclasses
import math
import re
from typing import Any

import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from gmixout_jax.checkpoint.files import (
  CheckpointError,
  Path,
  local_path,
)
from gmixout_jax.clip import names, weights
from gmixout_jax.clip.attention import Implementation
from gmixout_jax.clip.config import Activation, VisionConfig
from gmixout_jax.clip.vision import ViT

# timm parts that we would have to leave out, and would then compute nonsense.
_UNSUPPORTED = {
  r"^(dist_token|head_dist\.)": "a distillation token",
  r"^reg_token": "register tokens",
  r"^fc_norm\.": "average pooling",
  r"^attn_pool\.": "attention pooling",
  r"\.ls[12]\.": "LayerScale",
  r"\.[qk]_norm\.": "query and key norms",
  r"^pre_logits\.": "a pre-logits layer",
}


def vit_from_safetensors(
  path: Path,
  *,
  heads: int | None = None,
  image_size: int | None = None,
  num_classes: int | None = None,
  activation: Activation = "gelu",
  eps: float = 1e-6,
  dtype: DTypeLike = "float32",
  param_dtype: DTypeLike = "float32",
  remat: bool = False,
  attention: Implementation = "xla",
) -> ViT:
  """Loads a ViT with timm's names: augreg, DeiT, DINO, CLIP's image towers.

  Width, depth, patch size, MLP width, channels and classes are read off the
  tensors. What shapes do not tell are arguments; the defaults hold for all
  but CLIP's towers (eps=1e-5 and, for OpenAI's, activation="quick_gelu").

  Args:
    path: The safetensors file.
    heads: Attention heads; width / 64 by default.
    image_size: Another size than the pretrained one; position embeddings are
      interpolated (see `resize_positions`).
    num_classes: None keeps the file's head, if any; 0 drops it; another
      number than the file's puts a head of zeros in its place.
    activation: "gelu" (exact) or "quick_gelu".
    eps: Added to the variance in every LayerNorm.
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
    ValueError: An argument is not allowed; `path` may be no bucket.

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
  path = local_path("path", path)
  tensors = weights.Files([path])
  shape = _shape(tensors)
  if heads is None and shape["width"] % 64:
    raise ValueError(
      f"heads must be given, as the width {shape['width']} of {path} is not a "
      f"multiple of 64."
    )
  config = VisionConfig(
    **shape,
    heads=shape["width"] // 64 if heads is None else heads,
    activation=activation,
    eps=eps,
    dtype=dtype,
    param_dtype=param_dtype,
    remat=remat,
    attention=attention,
  )
  if image_size is not None:
    config = dataclasses.replace(config, image_size=image_size)
    weights.interpolate(
      tensors, "pos_embed", grid=image_size // config.patch_size
    )
  ignore = ()
  if num_classes is not None and num_classes != config.num_classes:
    config = dataclasses.replace(config, num_classes=num_classes)
    if num_classes == 0:
      ignore = ("head.weight", "head.bias")
    else:
      zeros = np.zeros((num_classes, config.width), np.float32)
      tensors["head.weight"], tensors["head.bias"] = zeros, zeros[:, 0]
  abstract = nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0)))
  return weights.fill(abstract, tensors, names.timm, ignore=ignore)


def pretrained_image_size(path: Path) -> int:
  """Side of the images, in pixels, that a ViT in safetensors was trained on.

  Only the file's header is read.

  Args:
    path: As for `vit_from_safetensors`.

  Raises:
    CheckpointError: If it is not a ViT with timm's names.
  """
  path = local_path("path", path)
  return _shape(weights.Files([path]))["image_size"]


def vit_to_safetensors(
  model: ViT, path: Path, *, dtype: DTypeLike | None = None
) -> None:
  """Saves a ViT under timm's names; inverse of `vit_from_safetensors`.

  Args:
    model: The model.
    path: The file; it appears whole or not at all. Its folder is made if it
      does not exist.
    dtype: The type to store; None keeps that of the parameters.

  Raises:
    ValueError: If `path` is the address of a bucket.

  Example:
    See `vit_from_safetensors`.
  """
  path = local_path("path", path)
  path.parent.mkdir(parents=True, exist_ok=True)
  weights.save(weights.collect(model, names.timm, dtype), path)


def _shape(tensors: weights.Files) -> dict[str, Any]:
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
  }
  faults = [
    f"{name}: {'missing' if name not in shapes else list(shapes[name])}"
    for name, rank in telling.items()
    if len(shapes.get(name, ())) != rank
  ]
  if faults:
    raise CheckpointError(
      f"{tensors.source} is not a ViT with timm's names:\n  "
      + "\n  ".join(faults)
    )
  width, channels, patch, _ = shapes["patch_embed.proj.weight"]
  patches = shapes["pos_embed"][1] - 1
  blocks = (re.match(r"blocks\.(\d+)\.", name) for name in shapes)
  return dict(
    width=width,
    depth=1 + max(int(block[1]) for block in blocks if block),
    mlp_width=shapes["blocks.0.mlp.fc1.weight"][0],
    # Patches that form no square are found when the shapes are compared.
    image_size=patch * max(math.isqrt(max(patches, 0)), 1),
    patch_size=patch,
    channels=channels,
    pre_norm="norm_pre.weight" in shapes,
    patch_bias="patch_embed.proj.bias" in shapes,
    num_classes=shapes.get("head.weight", (0,))[0],
  )
