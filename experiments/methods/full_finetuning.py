"""Full fine-tuning: every weight trains, from a linear probe on."""

import dataclasses

import jax
import optax

from experiments.methods.method import Method, Params, Schedule


@dataclasses.dataclass(frozen=True)
class FullFinetuning(Method):
  """AdamW on all parameters.

  As the head starts from a linear probe, this is LP-FT (Kumar et al., 2022,
  https://arxiv.org/abs/2202.10054): the stronger form of plain fine-tuning.

  Attributes:
    learning_rate: The peak, for the backbone and the head.
    weight_decay: Of AdamW, on every parameter.
  """

  learning_rate: float = 1e-4
  weight_decay: float = 0.0

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """AdamW."""
    del params, key
    return optax.adamw(
      schedule(self.learning_rate), weight_decay=self.weight_decay
    )
