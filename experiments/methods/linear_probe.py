"""Linear probing: a new head on the pretrained features."""

import dataclasses

import jax

from experiments.data.source import Source
from experiments.methods.method import Method
from experiments.models import probe
from experiments.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class LinearProbe(Method):
  """Fits the head by logistic regression and freezes the backbone.

  Without a zero-shot head, every other method starts from this one. See
  `models.probe` for how the head is fitted.
  """

  def prepare(
    self, model: Classifier, data: Source, key: jax.Array
  ) -> Classifier:
    """The model with a new head, whatever it had before."""
    del key
    return probe.fit_head(model, data)
