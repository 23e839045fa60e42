"""EMA: an exponential moving average of the weights of one run."""

import dataclasses
from typing import ClassVar

import optax

from experiments.methods.composition import Trained
from experiments.methods.method import Params
from gmixout_jax import averaging


@dataclasses.dataclass(frozen=True)
class EMA(Trained):
  """Evaluates θ̄ ← β θ̄ + (1 − β) θ, which starts at the initial weights.

  Attributes:
    decay: β, in [0, 1); 1 / (1 − β) steps should be 1 to 10 % of the run. 0.99
      is SWAD's and LT-Soups', for thousands of steps.
  """

  title: ClassVar[str] = "EMA"
  decay: float = 0.99

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.decay < 1:
      raise ValueError(f"decay must be in [0, 1), got {self.decay}.")

  def wrap(
    self, optimizer: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """The optimizer, with an average of its evaluation weights."""
    return averaging.average(
      optimizer, averaging.exponential(self.decay), deploy=self.of.deploy
    )

  def deploy(self, opt_state: optax.OptState, params: Params) -> Params:
    """The average."""
    return averaging.average_params(opt_state, params)
