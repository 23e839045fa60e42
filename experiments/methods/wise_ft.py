"""WiSE-FT: a point on the line from the initial to the fine-tuned weights."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from experiments.methods.composition import Composed
from experiments.methods.run import Combined, Run
from experiments.methods.validator import Validator
from gmixout_jax import averaging


@dataclasses.dataclass(frozen=True)
class WiseFT(Composed):
  """Evaluates (1 − α) θ0 + α θ1, the head included.

  Wortsman et al., 2021 (https://arxiv.org/abs/2109.01903). θ0 holds the head
  that the run started from: a zero-shot head, or the linear probe.

  Attributes:
    alpha: α, the share of the fine-tuned weights, in [0, 1]. The authors
      recommend 0.5 if there is no data to choose it on.
  """

  title: ClassVar[str] = "WiSE-FT"
  alpha: float = 0.5

  def __post_init__(self):
    if not 0 <= self.alpha <= 1:
      raise ValueError(f"alpha must be in [0, 1], got {self.alpha}.")

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """The point; of an ensemble, one for each."""
    combined = self.of.combine(runs, validator)
    return dataclasses.replace(
      combined,
      weights=tuple(
        averaging.interpolate(runs[0].initial, params, self.alpha)
        for params in combined.weights
      ),
    )
