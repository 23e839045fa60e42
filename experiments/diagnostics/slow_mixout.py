"""Mixout with the two settings that it shares with GMixout."""

import dataclasses
from typing import Any

from experiments.methods.mixout import Mixout


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlowMixout(Mixout):
  """Mixout whose anchor may move and whose masks may last.

  With the defaults it is Mixout as published, step for step. It is GMixout with
  a residual that survives the end of an episode: at λ < 1 the anchor follows
  the learned weights, A ← A + (1 − λ)Δ, which do not move by that.

  Attributes:
    anchor_decay: λ, how much of the old anchor survives an episode, in [0, 1].
    resample_every: k, the optimizer steps of an episode.
  """

  anchor_decay: float = 1.0
  resample_every: int = 1

  def settings(self) -> dict[str, Any]:
    """λ and k, rather than 1 and 1."""
    return super().settings() | {
      "anchor_decay": self.anchor_decay,
      "resample_every": self.resample_every,
    }
