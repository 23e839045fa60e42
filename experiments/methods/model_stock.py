"""Model Stock: two runs, merged with the pretrained weights by their angle."""

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
  """Merges runs that differ only in the seed, tensor by tensor.

  Jang et al., 2024 (https://arxiv.org/abs/2403.19522); see
  `gmixout_jax.averaging.model_stock`.

  Attributes:
    merged: N, at least 2: how many of the pool's runs to merge, the first ones
      with the other method's own learning rate.
  """

  title: ClassVar[str] = "Model Stock"
  merged: int = 2

  def members(self) -> tuple[Member, ...]:
    """The pool's runs with factor 1.

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
