"""Hugging Face's folders of CLIP and SigLIP, in and out."""

import dataclasses
import json
import pathlib
from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from gmixout_jax.checkpoint.files import Path, local_path, replacing
from gmixout_jax.clip import huggingface, names, weights
from gmixout_jax.clip.attention import Implementation
from gmixout_jax.clip.config import CLIPConfig
from gmixout_jax.clip.model import CLIP


def read_config(directory: Path, **fields: Any) -> CLIPConfig:
  """Reads the config.json of a Hugging Face CLIP or SigLIP folder.

  Args:
    directory: The folder.
    **fields: `dtype`, `param_dtype`, `remat` and `attention` of both towers.

  Returns:
    The config.

  Raises:
    FileNotFoundError: The folder or the file is absent.
    ValueError: The file does not describe a CLIP model, or `directory` is the
      address of a bucket.
  """
  directory = local_path("directory", directory)
  if not directory.is_dir():
    if directory.is_file():
      raise FileNotFoundError(
        f"{directory} is a file, and a CLIP is a folder: name the one that it"
        " lies in. A vision transformer in a file is read by clip.load."
      )
    raise FileNotFoundError(
      f"There is no folder {directory}. Nothing is downloaded here: fetch the "
      f"model's files first and name the folder that holds them."
    )
  path = directory / "config.json"
  if not path.is_file():
    raise FileNotFoundError(f"There is no file {path}.")
  raw = huggingface.read_object(path)
  try:
    return huggingface.parse_config(raw, **fields)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None


def from_pretrained(
  directory: Path,
  *,
  image_size: int | None = None,
  dtype: DTypeLike = "float32",
  param_dtype: DTypeLike = "float32",
  remat: bool = False,
  attention: Implementation = "xla",
) -> CLIP:
  """Loads a Hugging Face CLIP or SigLIP: config.json and model.safetensors.

  The weights may be one file or shards with an index, of any float type.

  Args:
    directory: The folder.
    image_size: Another size than the pretrained one; position embeddings are
      interpolated (see `resize_positions`).
    dtype: The type of the computation.
    param_dtype: The type of the parameters.
    remat: Recompute blocks in the backward pass to save memory.
    attention: "xla" or "cudnn", in both towers; see `VisionConfig`.

  Returns:
    The model.

  Raises:
    FileNotFoundError: The folder or a file is absent; it is named.
    CheckpointError: A `ValueError`: the weights are pickled, damaged, or do
      not fit the config; every tensor at fault is listed.
    ValueError: The config is not one of a CLIP model, `image_size` is not a
      multiple of the patch size, or `directory` is the address of a bucket.

  Example:
    >>> import tempfile
    >>> from flax import nnx
    >>> from gmixout_jax import clip
    >>> tower = dict(width=8, depth=1, heads=2, mlp_width=16)
    >>> config = clip.CLIPConfig(
    ...   vision=clip.VisionConfig(image_size=16, patch_size=8, **tower),
    ...   text=clip.TextConfig(vocab_size=10, eos_token_id=9, **tower),
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   clip.save_pretrained(clip.CLIP(config, rngs=nnx.Rngs(0)), folder)
    ...   model = clip.from_pretrained(folder, image_size=32)
    >>> model.vision.position_embedding.shape
    (17, 8)
  """
  config = read_config(
    directory,
    dtype=dtype,
    param_dtype=param_dtype,
    remat=remat,
    attention=attention,
  )
  tensors = weights.Files(weights.find(pathlib.Path(directory)))
  if image_size is not None:
    resized = dataclasses.replace(config.vision, image_size=image_size)
    config = dataclasses.replace(config, vision=resized)
    weights.interpolate(
      tensors,
      "vision_model.embeddings.position_embedding.weight",
      grid=resized.grid,
      prefix=resized.placed,
    )
  # Older folders store these buffers; they only count from zero.
  buffers = [k for k in tensors.shapes if k.endswith(".position_ids")]
  abstract = weights.shaped(
    lambda: CLIP(config, rngs=nnx.Rngs(0)),
    tensors,
    *(config.vision.depth, config.text.depth),
  )
  return weights.fill(abstract, tensors, _naming(config), ignore=buffers)


def _naming(config: CLIPConfig) -> names.Naming:
  return names.HUGGING_FACE_CLIP if config.vision_projection else names.SIGLIP


def save_pretrained(
  model: CLIP, directory: Path, *, dtype: DTypeLike | None = None
) -> None:
  """Saves a model as a Hugging Face CLIP or SigLIP, for us and for PyTorch.

  With a plain ViT for an image tower it is a folder for us alone; config.json
  then names a model type that PyTorch's loader does not know.

  Each file appears whole or not at all, the weights before the config. The
  tokenizer's files are not touched.

  Args:
    model: The model.
    directory: The folder; it is made if it does not exist.
    dtype: The type to store, as "float16" to halve the file; None keeps that
      of the parameters, and then loading gives back the same model.

  Raises:
    ValueError: If `directory` is the address of a bucket, or the form has no
      place for something of the model.

  Example:
    See `from_pretrained`.
  """
  directory = local_path("directory", directory)
  text = json.dumps(huggingface.format_config(model.config), indent=2)
  directory.mkdir(parents=True, exist_ok=True)
  tensors = weights.collect(model, _naming(model.config), dtype)
  weights.save(tensors, directory / "model.safetensors")
  with replacing(directory / "config.json") as temporary:
    temporary.write_text(text + "\n")
