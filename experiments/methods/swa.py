"""SWA: the mean of the weights over the last part of one run."""

import dataclasses
from typing import ClassVar

import jax
import optax

from experiments.methods.composition import Trained
from experiments.methods.method import Params, Schedule
from gmixout_jax import averaging


@dataclasses.dataclass(frozen=True)
class SWA(Trained):
  """Averages a run at a constant learning rate.

  Izmailov et al., 2018 (https://arxiv.org/abs/1803.05407). With every = 1 and
  an early start it is the simple moving average of Arpit et al., 2021
  (https://arxiv.org/abs/2110.10832), who find that intervals up to 100 steps
  make no difference.

  Attributes:
    start: The fraction of the run before averaging starts, in [0, 1). The paper
      has 161/200, EoA 100/5000.
    every: Steps between two averaged weights; the paper has an epoch.
  """

  title: ClassVar[str] = "SWA"
  start: float = 0.5
  every: int = 1

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.start < 1:
      raise ValueError(f"start must be in [0, 1), got {self.start}.")

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """The other method's, at a constant rate and with an average."""
    constant = dataclasses.replace(schedule, constant=True)
    transform = super().transform(params, constant, key)
    first = 1 + int(self.start * schedule.steps)
    return averaging.average(
      transform,
      averaging.uniform(start=first, every=self.every),
      deploy=self.of.deploy,
    )

  def deploy(self, opt_state: optax.OptState, params: Params) -> Params:
    """The average."""
    return averaging.average_params(opt_state, params)
