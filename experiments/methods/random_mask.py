"""Random masking: one random sub-network trains, the rest stays pretrained."""

import dataclasses
from typing import Any, ClassVar

from experiments.methods.mixed import Mixed


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomMask(Mixed):
  """Trains the same random tenth of every matrix for the whole run.

  Xu and Zhang, 2024 (https://arxiv.org/abs/2405.02596). See
  `gmixout_jax.random_mask`, of which these are the settings.

  Attributes:
    learning_rate: The peak, for the masked matrices. Sparser masks need a
      larger one: 1e-2 if 0.01 % trains.
    head_learning_rate: The peak, for the head.
  """

  title: ClassVar[str] = "Random Mask"
  learning_rate: float = 3e-4
  head_learning_rate: float = 1e-4

  def settings(self) -> dict[str, Any]:
    """A mask that is never redrawn, and a residual that is not rescaled."""
    return super().settings() | {
      "anchor_decay": 0.0,
      "resample_every": None,
      "rescale": False,
    }
