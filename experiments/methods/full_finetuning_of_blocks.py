"""Full fine-tuning of what GMixout trains: the control of a comparison."""

import dataclasses
from typing import Any, ClassVar

import jax
import optax

from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.method import Params, Schedule
from experiments.methods.mixed import block_labels


@dataclasses.dataclass(frozen=True)
class FullFinetuningOfBlocks(FullFinetuning):
  """AdamW on the matrices of the transformer blocks and on the head.

  Embeddings, norms and biases are frozen, as under GMixout, Mixout and Random
  Mask. A gain over full fine-tuning that this control shows too comes from what
  is frozen, not from the masks.

  Attributes:
    learning_rate: The peak, for the blocks and the head.
    weight_decay: Of AdamW, on what trains.
  """

  title: ClassVar[str] = "Full fine-tuning of blocks"

  @classmethod
  def control_of(cls, full: FullFinetuning) -> "FullFinetuningOfBlocks":
    """With the settings of full fine-tuning.

    Example:
      >>> FullFinetuningOfBlocks.control_of(FullFinetuning(learning_rate=0.5))
      FullFinetuningOfBlocks(learning_rate=0.5, weight_decay=0.0)
    """
    return cls(**dataclasses.asdict(full))

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """AdamW where anything trains."""
    adamw = super().transform(params, schedule, key)
    return optax.partition(
      {"mixed": adamw, "dense": adamw, "frozen": optax.set_to_zero()},
      block_labels,
    )

  def trains(self, params: Params) -> Any:
    """The matrices of the blocks, and the head."""
    return jax.tree.map(lambda label: label != "frozen", block_labels(params))
