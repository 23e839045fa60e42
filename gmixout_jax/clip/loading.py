"""Pretrained models from a folder or a file, whoever saved them."""

import dataclasses
import json
import pathlib
from typing import Any

from jax.typing import DTypeLike

from gmixout_jax.checkpoint.files import CheckpointError, Path, local_path
from gmixout_jax.clip import (
  convert,
  huggingface,
  huggingface_vit,
  open_clip,
  timm,
  weights,
)
from gmixout_jax.clip.attention import Implementation
from gmixout_jax.clip.config import (
  Activation,
  CLIPConfig,
  Pool,
  VisionConfig,
)
from gmixout_jax.clip.model import CLIP
from gmixout_jax.clip.vision import ViT

_CLIPS = ("clip", "open_clip")  # kinds of folders that hold two towers


def load(
  path: Path,
  *,
  image_size: int | None = None,
  num_classes: int | None = None,
  heads: int | None = None,
  pool: Pool | None = None,
  activation: Activation | None = None,
  eps: float | None = None,
  dtype: DTypeLike = "float32",
  param_dtype: DTypeLike = "float32",
  remat: bool = False,
  attention: Implementation = "xla",
) -> CLIP | ViT:
  """Loads a CLIP, a SigLIP or a vision transformer.

  The kind of model is read off the path:

  - a folder of Hugging Face's CLIP, SigLIP, ViT or DINOv2, with registers or
    without: config.json, and model.safetensors or its shards with their index;
  - a folder of open_clip: open_clip_config.json, open_clip_model.safetensors;
  - a folder of timm: config.json with an "architecture", model.safetensors;
  - a file of a ViT with timm's names.

  Weights may be of any float type. What neither tensors nor a config determine
  must be given as an argument: see `vit_from_safetensors`.

  Args:
    path: The folder or the file.
    image_size: Another size than the pretrained one; position embeddings are
      interpolated (see `resize_positions`).
    num_classes: For a ViT: None keeps the head, if any; 0 drops it; a number
      other than the file's replaces it by a head of zeros.
    heads: For a ViT with timm's names, if nothing else determines it.
    pool: Likewise.
    activation: Likewise.
    eps: Likewise.
    dtype: The type of the computation.
    param_dtype: The type of the parameters.
    remat: Recompute blocks in the backward pass to save memory.
    attention: "xla" or "cudnn"; see `VisionConfig`.

  Raises:
    FileNotFoundError: There is nothing at the path, or a file is absent.
    CheckpointError: A `ValueError`: weights are pickled, damaged, or do not fit
      the config; every tensor at fault is listed.
    ValueError: It is none of these, an argument is needed or has no meaning, or
      `path` is the address of a bucket.

  Example:
    >>> import tempfile
    >>> from flax import nnx
    >>> from gmixout_jax import clip
    >>> config = clip.VisionConfig.vit(
    ...   image_size=16, patch_size=8, width=64, depth=1, heads=1, mlp_width=8
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   clip.save(clip.ViT(config, rngs=nnx.Rngs(0)), folder)
    ...   type(clip.load(folder)).__name__
    'ViT'
  """
  path = local_path("path", path)
  how = {
    "dtype": dtype,
    "param_dtype": param_dtype,
    "remat": remat,
    "attention": attention,
  }
  asked = {
    "heads": heads,
    "pool": pool,
    "activation": activation,
    "eps": eps,
  }
  size = {"image_size": image_size}
  if not path.is_dir():
    return timm.vit_from_safetensors(
      path, num_classes=num_classes, **size, **asked, **how
    )
  kind, raw = kind_of(path)
  if kind != "timm":
    _refuse(path, kind, asked)
  if kind in _CLIPS:
    _refuse(path, kind, {"num_classes": num_classes})
  if kind == "clip":
    return convert.from_pretrained(path, **size, **how)
  config, tensors = _described(path, kind, raw, asked)
  if isinstance(config, CLIPConfig):
    config = dataclasses.replace(
      config,
      vision=dataclasses.replace(config.vision, **how),
      text=dataclasses.replace(config.text, **how),
    )
    return open_clip.load(tensors, config, **size)
  make = timm.fill if kind == "timm" else huggingface_vit.load
  config = dataclasses.replace(config, **how)
  return make(tensors, config, num_classes=num_classes, **size)


def describe(path: Path) -> CLIPConfig | VisionConfig:
  """The config of what `load` gives without arguments; no weight is read.

  Args:
    path: As for `load`, as are the errors.
  """
  path = local_path("path", path)
  if not path.is_dir():
    return timm.described(weights.Files([path]), {})
  kind, raw = kind_of(path)
  if kind == "clip":
    return convert.read_config(path)
  return _described(path, kind, raw, {})[0]


def holds_clip(path: Path) -> bool:
  """Whether `load` gives a `CLIP` or a `ViT`; no weight is read.

  Args:
    path: As for `load`.

  Raises:
    ValueError: As for `load`, of a folder's config.
  """
  path = local_path("path", path)
  return path.is_dir() and kind_of(path)[0] in _CLIPS


def _described(
  path: pathlib.Path, kind: str, raw: dict[str, Any], asked: dict[str, Any]
) -> tuple[CLIPConfig | VisionConfig, weights.Files]:
  """Config and tensors of a folder, of which no weight is read yet."""
  try:
    if kind == "open_clip":
      config = open_clip.parse(raw)
      return config, weights.Files(weights.find(path, open_clip.WEIGHTS))
    if kind == "vit":
      config = huggingface_vit.parse(raw)
      return config, weights.Files(weights.find(path))
    tensors = weights.Files(weights.find(path))
    return timm.described(tensors, asked, raw), tensors
  except CheckpointError:
    raise
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None


def kind_of(folder: pathlib.Path) -> tuple[str, dict[str, Any]]:
  """What a folder holds, and its config.

  Args:
    folder: It is there.

  Returns:
    "clip" (a SigLIP, too), "open_clip", "vit" (Hugging Face's) or "timm", and
    the parsed JSON.

  Raises:
    FileNotFoundError: There is no config; it says what lies there.
    CheckpointError: There are pickles alone.
    ValueError: The config is damaged, or of something else.
  """
  forms = {
    open_clip.CONFIG: open_clip.WEIGHTS,
    "config.json": "model.safetensors",
  }
  there = [name for name in forms if (folder / name).is_file()]
  # Who publishes a model in two forms may have one of them as pickles alone.
  whole = [name for name in there if _has(folder, forms[name])]
  if not there:
    if any(folder.glob("*.safetensors.index.json")) or not any(
      folder.glob("*.safetensors")
    ):
      weights.find(folder)  # says what is missing, or that there are pickles
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
    raise FileNotFoundError(
      f"There is no config.json in {folder}, which would tell what its weights"
      f" are; it holds {found or 'nothing'}."
    )
  name = (whole or there)[0]
  raw = huggingface.read_object(folder / name)
  if name == open_clip.CONFIG:
    return "open_clip", raw
  model = raw.get("model_type")
  if model in huggingface_vit.TYPES:
    return "vit", raw
  if model in huggingface.TYPES or (model is None and "text_config" in raw):
    return "clip", raw
  if model is None and "architecture" in raw:
    return "timm", raw
  known = ", ".join((*huggingface.TYPES, *huggingface_vit.TYPES))
  raise ValueError(
    f"{folder / name}: model_type must be one of {known}, or there must be"
    f" timm's architecture, got {json.dumps(model)}."
  )


def _has(folder: pathlib.Path, weights_name: str) -> bool:
  """Whether a folder has weights, in one file or in shards."""
  names = (weights_name, f"{weights_name}.index.json")
  return any((folder / name).is_file() for name in names)


def _refuse(path: pathlib.Path, kind: str, given: dict[str, Any]) -> None:
  for name, value in given.items():
    if value is not None:
      raise ValueError(
        f"{name} has no meaning for {path}, whose config tells it (it is of"
        f" the kind {kind!r}), got {value!r}."
      )
