"""A finished classifier from files: what predicts, and what is evaluated.

It is what `export` wrote, somebody else's ViT with a head, or a CLIP under a
head that its words make.
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
class Deployed:
  """A classifier with all that images need to be given to it.

  Attributes:
    model: From uint8 images to logits.
    class_names: What the outputs mean, in order; None if nothing says it.
    view: What it sees of an image.
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
) -> Deployed:
  """The classifier at a path.

  Args:
    path: The folder or file.
    classes: What the outputs mean, where the files do not say it; or the
      classes that a zero-shot head is made for.
    templates: Prompts for these, each with {} where a name goes; with them the
      head is made of words, also of a CLIP that has one.
    image_size: Side of the images in pixels; by default the model's own.
    mean: Of the pixels it was trained on; by default what its files say.
    std: Likewise.
    **settings: As for `clip.load`.

  Raises:
    FileNotFoundError: If there is nothing at the path.
    ValueError: If it has no head and no words; or names that are not as many as
      its outputs.
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
  return Deployed(model, names, preprocessing.view(prepared, size))


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
      f"{path} has no head, so it says nothing of classes: fit one with"
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
        f"{path} is a CLIP without a head: name the classes with --classes, for"
        " a head that is made of words, or train one with experiments.train"
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
  """What the outputs of a head mean."""
  if said is not None and asked is not None and tuple(said) != tuple(asked):
    raise ValueError(
      f"--classes has no meaning for {path}, which says that its outputs are"
      f" {', '.join(said[:8])}{', ...' if len(said) > 8 else ''}. Of a CLIP,"
      " --templates besides makes another head, of words."
    )
  names = said if said is not None else asked
  if names is None:
    return None
  if len(names) != outputs:
    raise ValueError(
      f"{path} has {outputs} outputs, but the names of {len(names)} classes are"
      " given."
    )
  return tuple(names)
