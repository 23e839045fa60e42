"""High-Rate Mixout: Mixout's elements, one by one, at a high rate."""

import dataclasses
from typing import ClassVar

from experiments.methods.mixed import Sampler
from experiments.methods.mixout import Mixout


@dataclasses.dataclass(frozen=True)
class HighRateMixout(Mixout):
  """Mixout with the settings of Aminbeidokhti et al., 2025, for transformers.

  https://arxiv.org/abs/2510.06955: entries are swapped one by one, nine in ten,
  at every forward pass. For ResNets the paper has p = 0.8.

  Attributes:
    learning_rate: The peak, for the mixed matrices; the default is the paper's,
      with Adam.
    head_learning_rate: The peak, for the head.
    sparsity: p, in [0, 1).
    sampler: How the entries are drawn.
  """

  title: ClassVar[str] = "High-Rate Mixout"
  learning_rate: float = 3e-5
  head_learning_rate: float = 3e-5
  sparsity: float = 0.9
  sampler: Sampler = "bernoulli"
