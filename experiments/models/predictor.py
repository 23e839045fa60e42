"""A finished classifier from files, for `predict` and `evaluate`.

It is an export, any ViT with a head, or a CLIP with a zero-shot head.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.data.decode import View
from experiments.models import backbones, own_head, preprocessing
from experiments.models.classifier import Classifier, ClipImageEncoder
from gmixout_jax import clip

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
  """A classifier, and how images are prepared for it.

  Attributes:
    model: From uint8 images to logits.
    class_names: The classes of the outputs, in order; None if unknown.
    view: How an image is resized and cropped.
  """

  model: Classifier
  class_names: tuple[str, ...] | None
  view: View


def load(
  path: Path,
  *,
  classes: Sequence[str] | None = None,
  templates: Sequence[str] | None = None,
  image_size: int | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  **settings: Any,
) -> Predictor:
  """The classifier at a path.

  Args:
    path: The folder or file.
    classes: The classes of the outputs, if the files do not name them; or the
      classes of a zero-shot head.
    templates: Prompts for these, each with {} for a name; they replace the head
      of a CLIP by a zero-shot head.
    image_size: Side of the images in pixels; by default the model's own.
    mean: Of the pixels it was trained on; by default from its files.
    std: Likewise.
    **settings: As for `clip.load`.

  Raises:
    FileNotFoundError: If there is nothing at the path.
    ValueError: If it has no head and no classes are given, or there are more or
      fewer names than outputs.
  """
  backbones.check_path(path, "MODEL")
  if templates is not None:
    backbones.check_templates(path, templates)
  path = pathlib.Path(path)
  size = image_size or backbones.image_size(path)
  prepared = preprocessing.load(path, mean=mean, std=std)
  settings |= {"image_size": image_size}
  pixels = {"mean": prepared.mean, "std": prepared.std}
  if not backbones.is_clip(path):
    model, names = _vit(path, classes, pixels, settings)
  else:
    model, names = _clip(path, classes, templates, pixels, settings)
  return Predictor(model, names, preprocessing.view(prepared, size))


def _vit(
  path: pathlib.Path,
  classes: Sequence[str] | None,
  pixels: dict[str, Any],
  settings: dict[str, Any],
) -> tuple[Classifier, tuple[str, ...] | None]:
  whole = backbones.load_vit(path, **settings)
  head = own_head.load(path, whole)
  if head is None:
    raise ValueError(
      f"{path} has no head: fit one with"
      f" experiments.train linear_probe --backbone {path} --train DIR --export"
      " MODEL.safetensors, and give that."
    )
  names = _named(path, len(head.bias), own_head.class_names(path), classes)
  vit = backbones.load_vit(path, num_classes=0, **settings)
  return Classifier(vit, *head, **pixels), names


def _clip(
  path: pathlib.Path,
  classes: Sequence[str] | None,
  templates: Sequence[str] | None,
  pixels: dict[str, Any],
  settings: dict[str, Any],
) -> tuple[Classifier, tuple[str, ...] | None]:
  has_head = (path / own_head.FILE).is_file()
  said = own_head.class_names(path) if has_head else None
  if templates is not None or not has_head:
    names = tuple(classes or said or ())
    if not names:
      raise ValueError(
        f"{path} is a CLIP without a head: name the classes of a zero-shot head"
        " with --classes, or train one with experiments.train"
        f" gmixout --backbone {path} --train DIR --export MODEL."
      )
    model = backbones.from_clip(
      path, names, templates or clip.PHOTO_TEMPLATES, **pixels, **settings
    )
    return model, names
  whole = backbones.load_clip(path, **settings)
  head = own_head.load(path, whole)
  assert head is not None
  names = _named(path, len(head.bias), said, classes)
  prompts = None
  if names is not None and (path / "tokenizer.json").is_file():
    prompts = backbones.prompts(path, whole, names, clip.PHOTO_TEMPLATES)
  encoder = ClipImageEncoder(whole)
  return Classifier(encoder, *head, **pixels, prompts=prompts), names


def _named(
  path: pathlib.Path,
  outputs: int,
  said: Sequence[str] | None,
  asked: Sequence[str] | None,
) -> tuple[str, ...] | None:
  """The classes of a head's outputs."""
  if said is not None and asked is not None and tuple(said) != tuple(asked):
    raise ValueError(
      f"--classes must be left out for {path}, whose outputs are"
      f" {', '.join(said[:8])}{', ...' if len(said) > 8 else ''}. For a CLIP,"
      " add --templates to replace its head by a zero-shot head."
    )
  names = said if said is not None else asked
  if names is None:
    return None
  if len(names) != outputs:
    raise ValueError(
      f"{path} has {outputs} outputs, but {len(names)} class names are given."
    )
  return tuple(names)
