"""Model soups: the mean of many runs, of the best, or a learned one.

Wortsman et al., 2022 (https://arxiv.org/abs/2203.05482).
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import numpy as np

from experiments.methods.composition import Pool
from experiments.methods.run import Combined, Run
from experiments.methods.validator import Validator
from gmixout_jax import averaging


@dataclasses.dataclass(frozen=True)
class UniformSoup(Pool):
  """The mean of all runs."""

  title: ClassVar[str] = "Uniform soup"

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """The mean."""
    soup = averaging.mean(self.ingredients(runs, validator))
    return Combined((soup,), tuple(range(len(runs))))


@dataclasses.dataclass(frozen=True)
class GreedySoup(Pool):
  """The mean of the runs that do not lower the validation accuracy.

  Attributes:
    ties: Whether a run that does not change it goes in: yes in the paper, no
      in its code.
  """

  title: ClassVar[str] = "Greedy soup"
  ties: bool = True

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """The soup, best run first."""
    soup = averaging.greedy_soup(
      self.ingredients(runs, validator), validator.accuracy, ties=self.ties
    )
    return Combined((soup.params,), soup.ingredients)


@dataclasses.dataclass(frozen=True)
class LearnedSoup(Pool):
  """The mean with shares that minimise the validation loss.

  Attributes:
    per_layer: Whether each tensor has shares of its own.
    rate: Learning rate of the shares; the authors have 0.05 by layer, else 0.1.
    epochs: Over the validation split; the authors have 5 by layer, else 3.
    batch_size: Images per step.
  """

  title: ClassVar[str] = "Learned soup"
  per_layer: bool = True
  rate: float = 0.05
  epochs: int = 5
  batch_size: int = 64

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """The soup."""
    soup = averaging.learned_soup(
      self.ingredients(runs, validator),
      validator.objective,
      validator.batches(batch_size=self.batch_size, epochs=self.epochs),
      per_leaf=self.per_layer,
      learning_rate=self.rate,
    )
    shares = np.mean(jax.tree.leaves(soup.weights), axis=0)
    return Combined(
      (soup.params,),
      tuple(range(len(runs))),
      {
        "mean_shares": [round(float(share), 4) for share in shares],
        "scale": round(soup.scale, 4),
      },
    )
