"""Model Stock: two runs and their angle say how far to go from the start."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import numpy as np

from experiments.methods.composition import Pool
from experiments.methods.method import Member
from experiments.methods.run import Combined, Run
from experiments.methods.validator import Validator
from gmixout_jax import averaging


@dataclasses.dataclass(frozen=True)
class ModelStock(Pool):
  """Merges runs that differ in nothing but the seed, tensor by tensor.

  Jang et al., 2024 (https://arxiv.org/abs/2403.19522); see
  `gmixout_jax.averaging.model_stock`.

  Attributes:
    merged: N, how many of the pool's runs: the first ones whose learning rate
      is the other method's own. At least 2.
  """

  title: ClassVar[str] = "Model Stock"
  merged: int = 2

  def members(self) -> tuple[Member, ...]:
    """The pool's runs with the learning rate as it is.

    Raises:
      ValueError: If the pool has fewer than `merged`.
    """
    own = [
      member
      for i, member in enumerate(super().members())
      if self.factor(i) == 1
    ]
    if not 2 <= self.merged <= len(own):
      raise ValueError(
        f"merged must be in [2, {len(own)}], the runs of the pool with factor"
        f" 1, got {self.merged}."
      )
    return tuple(own[: self.merged])

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """The merged weights."""
    stock = averaging.model_stock(
      runs[0].initial, self.ingredients(runs, validator)
    )
    ratios = [float(ratio) for ratio in jax.tree.leaves(stock.ratios)]
    return Combined(
      (stock.params,),
      tuple(range(len(runs))),
      {"mean_ratio": round(float(np.mean(ratios)), 4)},
    )
