"""Zero-shot: evaluate the pretrained model unchanged."""

import dataclasses
from typing import ClassVar

import jax

from experiments.data.source import Source
from experiments.methods.method import Method
from experiments.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class ZeroShot(Method):
  """Trains nothing, not even the head.

  The reference for a CLIP, whose zero-shot head is built from class names
  (Radford et al., 2021, https://arxiv.org/abs/2103.00020). A backbone without a
  text tower has none, and is refused.
  """

  title: ClassVar[str] = "Zero-shot"

  def prepare(
    self, model: Classifier, data: Source, key: jax.Array
  ) -> Classifier:
    """The model unchanged, with its zero-shot head in place of a tuned one."""
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
