"""Flags of `predict` and `evaluate`: which classifier, how it sees images."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated

import tyro

from experiments.data import workers
from experiments.data.listing import same_name
from experiments.data.workers import Workers
from experiments.models import backbones, predictor, preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
  """A finished classifier.

  Attributes:
    model: An export of experiments.train; any ViT with a head; or a CLIP, which
      gets a zero-shot head.
    classes: The names of the classes: for a zero-shot head, or for a head whose
      files do not name its outputs, in their order.
    templates: Prompts for a zero-shot head, such as "a photo of a {}.", with {}
      for the name of a class. They replace the head of an exported CLIP by a
      zero-shot head.
    image_size: Side of the images in pixels; by default the model's own.
    mean: Of the pixels the model was trained on, per channel, in [0, 1]; by
      default from its files.
    std: Likewise.
    batch_size: Images per forward pass.
    dtype: What the model computes in; logits are float32.
    attention: As for experiments.train.
    decode_threads: Threads that decode images; by default one for each CPU that
      this command may use.
  """

  model: Annotated[pathlib.Path, tyro.conf.Positional]
  classes: tuple[str, ...] | None = None
  templates: tuple[str, ...] | None = None
  image_size: int | None = None
  mean: tuple[float, float, float] | None = None
  std: tuple[float, float, float] | None = None
  batch_size: int = 64
  dtype: backbones.Dtype = "float32"
  attention: backbones.Attention = "xla"
  decode_threads: int | None = None

  def load(self, classes: Sequence[str] | None = None) -> predictor.Predictor:
    """The classifier, whose outputs are named.

    Args:
      classes: The classes of a zero-shot head, if no flag names them.

    Raises:
      FileNotFoundError: If it is not there.
      ValueError: If flags do not fit it, or nothing names its outputs.
    """
    if self.batch_size < 1:
      raise ValueError(
        f"--batch-size must be at least 1 image, got {self.batch_size}."
      )
    preprocessing.check_pixels(self.mean, self.std)
    asked = self.classes and tuple(map(same_name, self.classes))
    for name in asked or ():
      if (asked or ()).count(name) > 1 or not name.strip():
        raise ValueError(
          f"--classes must be names that differ, got {name!r} twice or empty."
        )
    workers.choose(Workers(self.decode_threads))
    backbones.check(dtype=self.dtype, attention=self.attention)
    backbones.check_path(self.model, "MODEL")
    if asked is None and backbones.needs_words(self.model):
      asked = classes
    found = predictor.load(
      self.model,
      classes=asked,
      templates=self.templates,
      image_size=self.image_size,
      mean=self.mean,
      std=self.std,
      dtype=self.dtype,
      attention=self.attention,
    )
    if found.class_names is None:
      raise ValueError(
        f"nothing in {self.model} says what its"
        f" {found.model.head.out_features} outputs mean: name them in their"
        " order with --classes."
      )
    return found
