"""Deployed classifiers as safetensors that other libraries read.

A ViT with its head is one file with timm's names. A CLIP is a Hugging Face
folder, which has no place for a head: that goes into a file of its own beside
the model, with the names of a linear layer in PyTorch.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.models.classifier import Classifier, ClipImageEncoder
from gmixout_jax import clip
from gmixout_jax.checkpoint.files import Path, replacing
from gmixout_jax.clip import weights

HEAD = "head.safetensors"

_SUFFIX = ".safetensors"


def to_timm(model: nnx.Module, path: Path) -> None:
  """Saves a classifier on a ViT, head included, under timm's names.

  `clip.vit_from_safetensors(path)` then gives the same logits, of normalised
  pixels, and so does timm.

  Args:
    model: The classifier.
    path: The file; it appears whole or not at all.

  Raises:
    ValueError: If it is not a classifier on a `clip.ViT`.
  """
  vit = _backbone(model, clip.ViT)
  assert isinstance(model, Classifier)
  classes = model.head.out_features
  config = dataclasses.replace(vit.config, num_classes=classes)
  abstract = nnx.eval_shape(lambda: clip.ViT(config, rngs=nnx.Rngs(0)))
  params = _params(vit) | {"head": _params(model.head)}
  whole = nnx.merge(nnx.graphdef(abstract), params)
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  clip.vit_to_safetensors(whole, path)


def to_hugging_face(
  model: nnx.Module, folder: Path, whole: clip.CLIP | None = None
) -> None:
  """Saves a classifier on CLIP's image tower as a Hugging Face folder.

  Args:
    model: The classifier.
    folder: It is made if it does not exist.
    whole: The CLIP whose text tower goes with it; by default the one that the
      head's words came from.

  Raises:
    ValueError: If it is not a classifier on a `ClipImageEncoder`, or there is
      no text tower.
  """
  encoder = _backbone(model, ClipImageEncoder)
  assert isinstance(model, Classifier)
  if whole is None and model.prompts is not None:
    whole = model.prompts.model
  if whole is None:
    raise ValueError(
      "whole must be the CLIP whose text tower goes with the image tower, got"
      " None, and the classifier's head did not come from words."
    )
  params = _params(whole) | {"vision": _params(encoder.vision)}
  if encoder.projection is not None:
    params["vision_projection"] = _params(encoder.projection)
  folder = pathlib.Path(folder)
  clip.save_pretrained(nnx.merge(nnx.graphdef(whole), params), folder)
  clip.save_normalization(folder, model.mean, model.std)
  head = {
    "weight": np.ascontiguousarray(np.asarray(model.head.kernel[...]).T),
    "bias": np.asarray(_params(model.head)["bias"]),
  }
  weights.save(head, folder / HEAD)
  tokenizer = model.prompts and model.prompts.tokenizer
  if tokenizer is not None and tokenizer.is_file():
    with replacing(folder / tokenizer.name) as temporary:
      shutil.copyfile(tokenizer, temporary)


def save(model: nnx.Module, path: Path) -> None:
  """Saves a classifier in the form of its backbone.

  Args:
    model: On a ViT: `to_timm`, and the file's name ends in ".safetensors". On
      CLIP's image tower: `to_hugging_face`.
    path: With ".safetensors" or without.

  Raises:
    ValueError: If it is neither.
  """
  if isinstance(getattr(model, "backbone", None), ClipImageEncoder):
    to_hugging_face(model, _bare(path))
  else:
    to_timm(model, _file(path))


def note(path: Path, what: str) -> None:
  """Notes beside an exported classifier what it is; see `is_of`."""
  with replacing(_note(path)) as temporary:
    temporary.write_text(what)


def is_of(path: Path, what: str) -> bool:
  """Whether a classifier is there, and was noted to be this one."""
  found = _file(path).is_file() or (_bare(path) / HEAD).is_file()
  note = _note(path)
  return found and note.is_file() and note.read_text() == what


def places(path: Path) -> tuple[pathlib.Path, pathlib.Path]:
  """The file and the folder that `save` may write."""
  return _file(path), _bare(path)


def _note(path: Path) -> pathlib.Path:
  bare = _bare(path)
  return bare.with_name(f"{bare.name}.exported")


def _bare(path: Path) -> pathlib.Path:
  path = pathlib.Path(path)
  return path.with_suffix("") if path.suffix == _SUFFIX else path


def _file(path: Path) -> pathlib.Path:
  bare = _bare(path)
  return bare.with_name(bare.name + _SUFFIX)


def from_hugging_face(
  folder: Path,
  *,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  **settings: Any,
) -> Classifier:
  """The classifier that `to_hugging_face` saved.

  Args:
    folder: The folder.
    mean: Of the pixels it was trained on; by default what the folder says.
    std: Likewise.
    **settings: As for `clip.from_pretrained`.

  Raises:
    FileNotFoundError: If a file is absent; it is named.
    CheckpointError: A `ValueError`: if a file is damaged, or does not fit.
  """
  model = clip.from_pretrained(folder, **settings)
  path = pathlib.Path(folder) / HEAD
  tensors = weights.Files([path])
  width = model.config.projection_dim
  shape = tensors.shapes.get("weight", ())
  if len(shape) != 2 or tensors.shapes != {
    "weight": (shape[0], width),
    "bias": (shape[0],),
  }:
    raise clip.CheckpointError(
      f"{path} must hold a weight [classes, {width}] and a bias [classes], got"
      f" {tensors.shapes}."
    )
  usual_mean, usual_std = clip.load_normalization(folder)
  return Classifier(
    ClipImageEncoder(model),
    jnp.asarray(tensors["weight"].T),
    jnp.asarray(tensors["bias"]),
    mean=mean or usual_mean,
    std=std or usual_std,
  )


def _backbone[B: nnx.Module](model: nnx.Module, kind: type[B]) -> B:
  backbone = getattr(model, "backbone", None)
  if not isinstance(model, Classifier) or not isinstance(backbone, kind):
    raise ValueError(
      f"what is exported must be a Classifier on a {kind.__name__}, got"
      f" {type(model).__name__} on {type(backbone).__name__}."
    )
  return backbone


def _params(module: nnx.Module) -> dict[str, Any]:
  return nnx.to_pure_dict(nnx.state(module, nnx.Param))
