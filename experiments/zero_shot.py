"""A classifier made of words, from the folder of any CLIP."""

import os
from collections.abc import Sequence
from typing import Any

from experiments import evaluate, metrics
from experiments.classifier import Classifier, ClipImageEncoder, Prompts
from experiments.data import domainbed
from experiments.data.decode import View
from gmixout_jax import clip
from gmixout_jax.clip import convert

TEMPLATES = (
  "a {}.",
  "a photo of a {}.",
  "a picture of a {}.",
  "a painting of a {}.",
  "a drawing of a {}.",
  "a cartoon of a {}.",
  "a sketch of a {}.",
)
"""Prompts for photographs, art, cartoons and sketches; written down before
anything was evaluated with them, and not changed since."""


def classifier(
  folder: str | os.PathLike[str],
  class_names: Sequence[str],
  templates: Sequence[str] = TEMPLATES,
  *,
  image_size: int | None = None,
) -> Classifier:
  """The image tower of a CLIP under a head of words.

  Args:
    folder: As `clip.save_pretrained` or `experiments.pretrain_clip` write it,
      with tokenizer.json; preprocessor_config.json says how pixels are
      normalised, else it is CLIP's way.
    class_names: What the classes are called; "_" is read as a space.
    templates: Prompts; each holds {}, where the name goes.
    image_size: Another size than the folder's; position embeddings are
      interpolated.

  Returns:
    The classifier, logit scale included, with the prompts that methods which
    train the text tower start from.

  Raises:
    FileNotFoundError: If the folder or a file is absent; it is named.
    ValueError: If a file is damaged, or there are no classes or templates.
  """
  model = clip.from_pretrained(folder, image_size=image_size)
  tokenizer = clip.load_tokenizer(folder)
  names = [name.replace("_", " ") for name in class_names]
  head = clip.zero_shot_head(model, tokenizer, names, templates, scaled=True)
  texts = [text.replace("{}", name) for name in names for text in templates]
  token_ids = tokenizer(texts).reshape(len(names), len(templates), -1)
  mean, std = clip.load_normalization(folder)
  return Classifier(
    ClipImageEncoder(model),
    head,
    mean=mean,
    std=std,
    prompts=Prompts(model, token_ids),
  )


def accuracy(
  folder: str | os.PathLike[str],
  root: str | os.PathLike[str],
  *,
  batch_size: int = 256,
) -> dict[str, dict[str, Any]]:
  """Zero-shot accuracy on every domain of a folder in DomainBed's layout.

  Args:
    folder: Of the CLIP; images are read in its size.
    root: The folder of domains; its class folders name the classes.
    batch_size: Images per forward pass.

  Returns:
    By domain ``top1`` and ``mean_per_class``, and by class ``per_class``, all
    in [0, 1]; JSON.
  """
  size = convert.read_config(folder).vision.image_size
  images = domainbed.open_images(root, view=View(size))
  names = images.class_names
  model = classifier(folder, names)
  found = {}
  for domain, part in images.by_domain().items():
    predictions = evaluate.logits(model, part, batch_size=batch_size).argmax(-1)
    shares = metrics.per_class(predictions, part.labels, classes=len(names))
    found[domain] = {
      "top1": metrics.top1(predictions, part.labels),
      "mean_per_class": float(shares.mean()),
      "per_class": {
        name: round(float(share), 4)
        for name, share in zip(names, shares, strict=True)
      },
    }
  return found
