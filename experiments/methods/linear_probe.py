"""Linear probing: a new head on the pretrained features."""

import dataclasses

from experiments.methods.method import Method


@dataclasses.dataclass(frozen=True)
class LinearProbe(Method):
  """Fits the head by logistic regression and leaves the backbone alone.

  Every other method starts from this head, so what a method adds is its
  distance to this one. See `experiments.probe` for how the head is fitted.
  """
