"""Flags of `predict` and `evaluate`: which classifier, how it sees images."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated

import tyro

from experiments.data import workers
from experiments.data.listing import same_name
from experiments.data.workers import Workers
from experiments.models import backbones, deployed, preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
  """A finished classifier.

  Attributes:
    model: What experiments.train has exported; a ViT with a head, whoever
      saved it; or a CLIP, whose head is made of the names of the classes.
    classes: The names of the classes: for the zero-shot head of a CLIP that has
      no other, or in the order of the outputs of a head whose files do not say
      what they mean.
    templates: Prompts for a zero-shot head, such as "a photo of a {}.", with {}
      where a name goes. With them the head is made of words also of a CLIP that
      was exported with one.
    image_size: Side of the images in pixels; by default the model's own.
    mean: Of the pixels the model was trained on, per channel, in [0, 1]; by
      default what its files say.
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

  def load(self, classes: Sequence[str] | None = None) -> deployed.Deployed:
    """The classifier, whose outputs are named.

    Args:
      classes: What a CLIP without a head is asked about, if no flag says it.

    Raises:
      FileNotFoundError: If it is not there.
      ValueError: If flags do not go with it, or nothing says what its outputs
        mean.
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
    found = deployed.load(
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
