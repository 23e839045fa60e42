"""The results of a run, and of runs combined."""

import dataclasses
from typing import Any, NamedTuple

Params = Any  # a nested dict of arrays: backbone/..., head/kernel, head/bias


class Snapshot(NamedTuple):
  """The weights after some step, on the host; as a rule the evaluation weights.

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
    params: Its evaluation weights.
    snapshots: After the steps that were asked for, earliest first.
  """

  initial: Params
  params: Params
  snapshots: tuple[Snapshot, ...] = ()


@dataclasses.dataclass(frozen=True)
class Combined:
  """What a method made of its runs.

  Attributes:
    weights: One element: the evaluation weights. Several: their logits are
      averaged, which takes as many forward passes per image.
    ingredients: Indices of the runs that are part of it.
    notes: Further findings, such as the shares of a soup; JSON.
  """

  weights: tuple[Params, ...]
  ingredients: tuple[int, ...] = (0,)
  notes: dict[str, Any] = dataclasses.field(default_factory=dict)
