"""Mixout: random weights are swapped for pretrained ones at every step."""

import dataclasses
from typing import Any, ClassVar

from experiments.methods.mixed import Mixed, Sampler


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixout(Mixed):
  """Trains all of the blocks' matrices, through masks redrawn at every step.

  Lee, Cho, Kang, 2020 (https://arxiv.org/abs/1909.11299); at p = 0.9 on a
  vision transformer it is High-Rate Mixout (arXiv 2510.06955). See
  `gmixout_jax.mixout`, of which these are the settings.

  Attributes:
    learning_rate: The peak, for the mixed matrices.
    head_learning_rate: The peak, for the head.
    sampler: How the weights to swap are drawn: "neuron" as in the paper of
      2020, "bernoulli" as in High-Rate Mixout.
  """

  learning_rate: float = 1e-4
  head_learning_rate: float = 1e-4
  sampler: Sampler = "bernoulli"

  @property
  def packs(self) -> bool:
    """Only for whole neurons: the residual and its gradients are dense."""
    return super().packs and self.sampler == "neuron"

  def settings(self) -> dict[str, Any]:
    """A residual that is kept, a fixed anchor, a mask for every step."""
    return super().settings() | {
      "residual": "keep",
      "anchor_decay": 1.0,
      "resample_every": 1,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuronMixout(Mixout):
  """Mixout as in the paper of 2020: an input neuron's weights swap together."""

  title: ClassVar[str] = "Mixout, neurons"
  sampler: Sampler = "neuron"
