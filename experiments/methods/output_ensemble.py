"""The output ensemble: the mean logits of several runs."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from experiments.methods.composition import Pool
from experiments.methods.run import Combined, Run
from experiments.methods.validator import Validator


@dataclasses.dataclass(frozen=True)
class OutputEnsemble(Pool):
  """Averages raw logits, as in model soups and EoA, at the cost of all runs."""

  title: ClassVar[str] = "Output ensemble"

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """All runs."""
    weights = tuple(self.ingredients(runs, validator))
    return Combined(weights, tuple(range(len(weights))))
