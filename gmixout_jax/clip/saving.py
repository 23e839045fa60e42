"""Models written in the form of a library that reads them again."""

import json
import pathlib
from collections.abc import Sequence
from typing import Literal, get_args

from jax.typing import DTypeLike

from gmixout_jax.checkpoint.files import Path, local_path, replacing
from gmixout_jax.clip import (
  convert,
  huggingface_vit,
  preprocessing_configs,
  timm,
  timm_config,
)
from gmixout_jax.clip.model import CLIP
from gmixout_jax.clip.preprocessing import save_preprocessing
from gmixout_jax.clip.preprocessing_configs import Preprocessing
from gmixout_jax.clip.vision import ViT

Form = Literal["timm", "huggingface"]


def save(
  model: CLIP | ViT,
  path: Path,
  *,
  form: Form | None = None,
  preprocessing: Preprocessing | None = None,
  class_names: Sequence[str] | None = None,
  dtype: DTypeLike | None = None,
) -> None:
  """Writes a model; `load` gives it back, bit for bit.

  Args:
    model: A CLIP, or a ViT with or without a head.
    path: A folder, which is made if it does not exist; or for a ViT in timm's
      form a file whose name ends in ".safetensors".
    form: "huggingface" (CLIP, SigLIP, ViT, DINOv2) or "timm"; by default
      "huggingface" for a CLIP and "timm" for a ViT.
    preprocessing: How its images are prepared, to note beside it; None notes
      nothing.
    class_names: Of the outputs of a ViT's head, likewise.
    dtype: The type to store; None keeps that of the parameters.

  Raises:
    ValueError: `form` is none of these, or has no place for something of the
      model; there are more or fewer names than outputs; or `path` is the
      address of a bucket.

  Example:
    See `load`.
  """
  path = local_path("path", path)
  if form is not None and form not in get_args(Form):
    raise ValueError(f"form must be one of {get_args(Form)}, got {form!r}.")
  if isinstance(model, CLIP):
    if form == "timm":
      raise ValueError("form must be 'huggingface' for a CLIP, got 'timm'.")
    if class_names is not None:
      raise ValueError(
        f"class_names have no place in a CLIP, which has no head, got"
        f" {class_names!r}."
      )
    convert.save_pretrained(model, path, dtype=dtype)
  elif form == "huggingface":
    huggingface_vit.save(model, path, class_names=class_names, dtype=dtype)
  elif path.suffix == ".safetensors":
    timm.vit_to_safetensors(
      model,
      path,
      preprocessing=preprocessing,
      class_names=class_names,
      dtype=dtype,
    )
    return
  else:
    _timm_folder(model, path, preprocessing, class_names, dtype)
    return
  if preprocessing is not None:
    save_preprocessing(path, preprocessing)


def _timm_folder(
  model: ViT,
  folder: pathlib.Path,
  preprocessing: Preprocessing | None,
  class_names: Sequence[str] | None,
  dtype: DTypeLike | None,
) -> None:
  timm.vit_to_safetensors(
    model, folder / "model.safetensors", class_names=class_names, dtype=dtype
  )
  images = None
  if preprocessing is not None:
    images = preprocessing_configs.to_timm(preprocessing)
  raw = timm_config.format_config(model.config, images, class_names)
  with replacing(folder / "config.json") as temporary:
    temporary.write_text(json.dumps(raw, indent=2) + "\n")
