"""Models written in the form of a library that reads them again."""

import json
import pathlib
from collections.abc import Sequence
from typing import Literal

from jax.typing import DTypeLike

from gmixout_jax.checkpoint.files import Path, local_path, replacing
from gmixout_jax.clip import convert, huggingface_vit, images, timm, timm_config
from gmixout_jax.clip.model import CLIP
from gmixout_jax.clip.vision import ViT

Form = Literal["timm", "huggingface"]


def save(
  model: CLIP | ViT,
  path: Path,
  *,
  form: Form | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  dtype: DTypeLike | None = None,
) -> None:
  """Writes a model; `load` gives it back, bit for bit.

  Args:
    model: A CLIP, or a ViT with or without a head.
    path: A folder, which is made if it does not exist; or of a ViT in timm's
      form a file, if its name ends in ".safetensors".
    form: Whose: "huggingface" (CLIP, SigLIP, ViT, DINOv2), which is that of
      every CLIP, or "timm", by default that of a ViT.
    mean: Of the pixels that the model was trained on, per channel, on the scale
      [0, 1], to note beside it; None notes nothing.
    std: Likewise.
    dtype: The type to store; None keeps that of the parameters.

  Raises:
    ValueError: The form has no place for something of the model, or `path` is
      the address of a bucket.

  Example:
    See `load`.
  """
  path = local_path("path", path)
  if isinstance(model, CLIP):
    if form == "timm":
      raise ValueError("form must be 'huggingface' for a CLIP, got 'timm'.")
    convert.save_pretrained(model, path, dtype=dtype)
  elif form == "huggingface":
    huggingface_vit.save(model, path, dtype=dtype)
  elif path.suffix == ".safetensors":
    timm.vit_to_safetensors(model, path, dtype=dtype)
    return
  else:
    _timm_folder(model, path, mean, std, dtype)
  if mean is not None and std is not None and form != "timm":
    images.save_normalization(path, mean, std)


def _timm_folder(
  model: ViT,
  folder: pathlib.Path,
  mean: Sequence[float] | None,
  std: Sequence[float] | None,
  dtype: DTypeLike | None,
) -> None:
  timm.vit_to_safetensors(model, folder / "model.safetensors", dtype=dtype)
  raw = timm_config.format_config(model.config, mean=mean, std=std)
  with replacing(folder / "config.json") as temporary:
    temporary.write_text(json.dumps(raw, indent=2) + "\n")
