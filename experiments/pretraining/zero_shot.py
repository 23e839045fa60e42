"""What a CLIP knows of the domains of PACS before any training there."""

import os
from typing import Any

from experiments import metrics
from experiments.data import domainbed
from experiments.data.decode import View
from experiments.models import backbones, evaluation
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
  for sentence in images.left_out:
    print(sentence)
  names = images.class_names
  model = backbones.from_clip(folder, names, TEMPLATES)
  found = {}
  for domain, part in images.by_domain().items():
    predictions = evaluation.logits(model, part, batch_size=batch_size).argmax(
      -1
    )
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
