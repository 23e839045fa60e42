"""DiWA: the mean of runs with mild hyperparameters, each at its best step.

Ramé et al., 2022 (https://arxiv.org/abs/2205.09739).
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from experiments.methods.composition import Pool
from experiments.methods.method import Params
from experiments.methods.run import Combined, Run
from experiments.methods.validator import Validator
from gmixout_jax import averaging


@dataclasses.dataclass(frozen=True)
class DiWA(Pool):
  """The mean of all runs, each at its snapshot of best validation accuracy.

  The pool varies learning rates and image orders; the paper also varies weight
  decay and dropout, which `of` may have. As in the paper, learning rates are
  mild and all runs share one initial head.

  Attributes:
    evaluations: Snapshots per run, at least 1; the paper has one every 300 of
      5,000 steps.
  """

  title: ClassVar[str] = "DiWA, uniform"
  evaluations: int = 10

  def __post_init__(self):
    super().__post_init__()
    if self.evaluations < 1:
      raise ValueError(
        f"evaluations must be at least 1, got {self.evaluations}."
      )
    if self.of.snapshots(2):
      raise ValueError(
        f"{type(self).__name__} takes single steps of its runs, and"
        f" {type(self.of).__name__} averages several: it cannot be made of it."
      )

  def snapshots(self, steps: int) -> tuple[int, ...]:
    """Evenly spaced, the last step included."""
    count = min(self.evaluations, steps)
    return tuple(steps * (i + 1) // count for i in range(count))

  def ingredients(
    self, runs: Sequence[Run], validator: Validator
  ) -> list[Params]:
    """Each run at its best snapshot; of equal ones, at the latest."""
    best = []
    for run in runs:
      scores = [(validator.accuracy(s.params), s.step) for s in run.snapshots]
      _, step = max(scores)
      (chosen,) = (s.params for s in run.snapshots if s.step == step)
      best.append(run._replace(params=chosen))
    return super().ingredients(best, validator)

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """The mean."""
    soup = averaging.mean(self.ingredients(runs, validator))
    return Combined((soup,), tuple(range(len(runs))))


@dataclasses.dataclass(frozen=True)
class RestrictedDiWA(DiWA):
  """The mean of the runs that do not lower the validation accuracy."""

  title: ClassVar[str] = "DiWA, restricted"

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """The greedy soup of the best snapshots; ties go in."""
    soup = averaging.greedy_soup(
      self.ingredients(runs, validator), validator.accuracy
    )
    return Combined((soup.params,), soup.ingredients)
