"""Finished classifiers as safetensors that other libraries read.

A ViT with its head is one file with timm's names. A CLIP is a Hugging Face
folder with its text tower and tokenizer, and has its head in a file beside the
model. Both say what the outputs mean and how images are prepared, and are a
backbone again.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from flax import nnx

from experiments.data.decode import View
from experiments.models import own_head, preprocessing
from experiments.models.classifier import Classifier, ClipImageEncoder
from gmixout_jax import clip
from gmixout_jax.checkpoint.files import Path, replacing

TOKENIZER = (
  "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
  "vocab.json", "merges.txt", "spiece.model",
)  # fmt: skip
"""What a folder may hold of a tokenizer."""

_SUFFIX = ".safetensors"


def to_timm(
  model: nnx.Module,
  path: Path,
  *,
  class_names: Sequence[str] | None = None,
  view: View | None = None,
) -> None:
  """Saves a classifier on a ViT, head included, under timm's names.

  `clip.vit_from_safetensors(path)` then gives the same logits, of normalised
  pixels, and so does timm.

  Args:
    model: The classifier.
    path: The file; it appears whole or not at all.
    class_names: What its outputs mean.
    view: What it sees of an image; by default what `clip.Preprocessing` has.

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
  clip.vit_to_safetensors(
    whole,
    path,
    preprocessing=_prepared(model, view, vit.config.image_size),
    class_names=class_names,
  )


def to_hugging_face(
  model: nnx.Module,
  folder: Path,
  whole: clip.CLIP | None = None,
  *,
  class_names: Sequence[str] | None = None,
  view: View | None = None,
) -> None:
  """Saves a classifier on CLIP's image tower as a Hugging Face folder.

  Args:
    model: The classifier.
    folder: It is made if it does not exist.
    whole: The CLIP whose text tower goes with it; by default that of the
      zero-shot head.
    class_names: See `to_timm`.
    view: See `to_timm`.

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
      " None, and the classifier has no zero-shot head."
    )
  params = _params(whole) | {"vision": _params(encoder.vision)}
  if encoder.projection is not None:
    params["vision_projection"] = _params(encoder.projection)
  folder = pathlib.Path(folder)
  clip.save(
    nnx.merge(nnx.graphdef(whole), params),
    folder,
    preprocessing=_prepared(model, view, encoder.vision.config.image_size),
  )
  layer = _params(model.head)
  head = own_head.Head(layer["kernel"], layer["bias"])
  own_head.save(folder, head, class_names)
  if model.prompts is None or model.prompts.tokenizer is None:
    return
  for name in TOKENIZER:
    if (file := model.prompts.tokenizer / name).is_file():
      with replacing(folder / name) as temporary:
        shutil.copyfile(file, temporary)


def save(
  model: nnx.Module,
  path: Path,
  *,
  class_names: Sequence[str] | None = None,
  view: View | None = None,
) -> None:
  """Saves a classifier in the form of its backbone.

  Args:
    model: On a ViT: `to_timm`, and the file's name ends in ".safetensors". On
      CLIP's image tower: `to_hugging_face`.
    path: With ".safetensors" or without.
    class_names: See `to_timm`.
    view: See `to_timm`.

  Raises:
    ValueError: If it is neither.
  """
  if isinstance(getattr(model, "backbone", None), ClipImageEncoder):
    to_hugging_face(model, _bare(path), class_names=class_names, view=view)
  else:
    to_timm(model, _file(path), class_names=class_names, view=view)


def check(path: Path, *, to_folder: bool) -> None:
  """Whether a classifier may be saved at a path, before it is trained.

  Args:
    path: As for `save`.
    to_folder: Whether it is one on a CLIP.

  Raises:
    ValueError: If the path is that of the other form, or something lies there
      that is no export, and would be replaced or added to.
  """
  path = pathlib.Path(path)
  if to_folder and path.suffix == _SUFFIX:
    raise ValueError(f"--export must be a folder for a CLIP, got {path}.")
  target = _bare(path) if to_folder else _file(path)
  if not target.exists() or _note(path).is_file():
    return
  if target.is_dir():
    ours = (target / own_head.FILE).is_file() or not any(target.iterdir())
  else:
    ours = not to_folder and _is_ours(target)
  if not ours or target.is_dir() != to_folder:
    raise ValueError(
      f"--export {path} must be new, or an earlier export: {target} holds"
      " something else."
    )


def _is_ours(file: pathlib.Path) -> bool:
  try:
    return clip.load_preprocessing(file) is not None
  except ValueError:
    return False


def _prepared(
  model: Classifier, view: View | None, size: int
) -> clip.Preprocessing:
  if view is None:
    return clip.Preprocessing(model.mean, model.std, size)
  # A task's images may be of another size than the first of the backbone.
  view = dataclasses.replace(view, size=size)
  return preprocessing.of_view(view, model.mean, model.std)


def note(path: Path, what: str) -> None:
  """Notes beside an exported classifier what it is; see `is_of`."""
  with replacing(_note(path)) as temporary:
    temporary.write_text(what)


def is_of(path: Path, what: str) -> bool:
  """Whether a classifier is there, and was noted to be this one."""
  found = _file(path).is_file() or (_bare(path) / own_head.FILE).is_file()
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
