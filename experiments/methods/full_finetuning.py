"""Full fine-tuning: every weight trains."""

import dataclasses
from typing import ClassVar

import jax
import optax

from experiments.methods.method import Method, Params, Schedule


@dataclasses.dataclass(frozen=True)
class FullFinetuning(Method):
  """AdamW on all parameters.

  It starts from the head that all methods share. For a backbone without a text
  tower that is a linear probe, and this is `lp_ft`.

  Attributes:
    learning_rate: The peak, for the backbone and the head.
    weight_decay: Of AdamW, on every parameter.
  """

  title: ClassVar[str] = "Full fine-tuning"
  learning_rate: float = 1e-4
  weight_decay: float = 0.0

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """AdamW."""
    del params, key
    return schedule.make_optimizer(
      self.learning_rate, weight_decay=self.weight_decay
    )
