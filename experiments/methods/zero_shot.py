"""Zero-shot: evaluate the pretrained model as it is."""

import dataclasses
from typing import ClassVar

import jax

from experiments.data.source import Source
from experiments.methods.method import Method
from experiments.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class ZeroShot(Method):
  """Trains nothing, not even the head.

  It is the reference for a CLIP whose head is made of class names (Radford et
  al., 2021, https://arxiv.org/abs/2103.00020). To a backbone without a text
  tower the experiments fit a head, and refuse to call that so.
  """

  title: ClassVar[str] = "Zero-shot"

  def prepare(
    self, model: Classifier, data: Source, key: jax.Array
  ) -> Classifier:
    """The model as it was handed in, but for a head that it was tuned with."""
    del data, key
    if model.prompts is None or model.prompts.kernel is None:
      return model
    return Classifier(
      model.backbone,
      model.prompts.kernel,
      mean=model.mean,
      std=model.std,
      prompts=model.prompts,
    )
