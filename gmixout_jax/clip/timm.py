"""timm's vision transformers, in and out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from gmixout_jax.checkpoint.files import Path, local_path
from gmixout_jax.clip import (
  names,
  preprocessing_configs,
  timm_config,
  timm_tensors,
  weights,
)
from gmixout_jax.clip.attention import Implementation
from gmixout_jax.clip.class_names import checked
from gmixout_jax.clip.config import Activation, Pool, VisionConfig
from gmixout_jax.clip.preprocessing_configs import Preprocessing
from gmixout_jax.clip.vision import ViT


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

  Widths, depth, tokens and parts are read off the tensors. The rest comes from
  the notes of `vit_to_safetensors` in the file, from the arguments, or from
  timm's defaults for a plain ViT; if none of these determines a field, the
  error names the argument. A folder has it all in its config.json: see
  `clip.load`.

  Args:
    path: The safetensors file.
    heads: Attention heads; by default those of the published ViT of its width
      (see `HEADS`).
    image_size: Another size than the pretrained one; position embeddings are
      interpolated (see `resize_positions`).
    num_classes: None keeps the file's head, if any; 0 drops it; a number other
      than the file's replaces it by a head of zeros.
    pool: How tokens are pooled, see `VisionConfig`; by default the class token.
      Required if the final norm comes after pooling (fc_norm), or there is no
      class token.
    activation: See `VisionConfig`; by default "gelu". Required if there is a
      norm before the first block, as in CLIP's towers.
    eps: Added to the variance in every LayerNorm; by default 1e-6, and required
      likewise.
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
  """The config of tensors, from all that is known of them.

  Args:
    tensors: Of which names, shapes and notes are read.
    given: Fields that were asked for, which win; None is none.
    raw: The config.json beside them, if there is one, which wins over notes.
  """
  known = timm_config.noted_fields(tensors.metadata, tensors.source)
  if raw is not None:
    pre_norm = "norm_pre.weight" in tensors.shapes
    known |= timm_config.parse(raw, pre_norm=pre_norm)
  asked = {name: value for name, value in given.items() if value is not None}
  return timm_tensors.describe(tensors, known | asked)


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
    config: From `described`.
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
  abstract = weights.shaped(
    lambda: ViT(config, rngs=nnx.Rngs(0)), tensors, config.depth
  )
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
