"""LP-FT: a linear probe first, then everything."""

import dataclasses
from typing import ClassVar

import jax

from experiments.data.source import Source
from experiments.methods.full_finetuning import FullFinetuning
from experiments.models import probe
from experiments.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class LPFT(FullFinetuning):
  """Full fine-tuning from a head that fits the frozen features.

  Kumar et al., 2022 (https://arxiv.org/abs/2202.10054): with a head that is
  still wrong, the first steps distort the features. A backbone without a text
  tower starts from a probe anyway; then this is `full_finetuning`. The
  optimizer is AdamW, as everywhere here; the paper uses SGD for its ResNets.
  """

  title: ClassVar[str] = "LP-FT"

  def prepare(
    self, model: Classifier, data: Source, key: jax.Array
  ) -> Classifier:
    """The model with a linear probe as head, whatever it had before."""
    del key
    return probe.fit_head(model, data)
