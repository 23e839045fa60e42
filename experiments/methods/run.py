"""What one run leaves behind, and what some runs become."""

import dataclasses
from typing import Any, NamedTuple

Params = Any  # a nested dict of arrays: backbone/..., head/kernel, head/bias


class Snapshot(NamedTuple):
  """The weights after some step, on the host: as a rule those to deploy.

  Attributes:
    step: Optimizer steps taken.
    params: The weights.
  """

  step: int
  params: Params


class Run(NamedTuple):
  """A finished run; all weights have the structure of the classifier.

  Attributes:
    initial: The weights it started from, with the head that all share.
    params: The weights it deploys.
    snapshots: After the steps that were asked for, or more; earliest first.
  """

  initial: Params
  params: Params
  snapshots: tuple[Snapshot, ...] = ()


@dataclasses.dataclass(frozen=True)
class Combined:
  """What a method made of its runs.

  Attributes:
    weights: One element: the weights to deploy. Several: their logits are
      averaged, at as many forward passes per image.
    ingredients: Indices of the runs that are part of it.
    notes: What was found on the way, such as the shares of a soup; JSON.
  """

  weights: tuple[Params, ...]
  ingredients: tuple[int, ...] = (0,)
  notes: dict[str, Any] = dataclasses.field(default_factory=dict)
