"""Early stopping: by ID accuracy, and by nothing else."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from experiments.methods.run import Params


@dataclasses.dataclass
class Patience:
  """The ID accuracies of a run, and the weights of the best of them.

  Attributes:
    every: Steps between two evaluations.
    patience: How many without a better one end the run.
    scores: Of all evaluations; NaN are to come.
    best: The weights of the best, as `Method.deploy` makes them; on the host.
  """

  every: int
  patience: int
  scores: Float[np.ndarray, " evaluations"]
  best: Params

  @classmethod
  def before(
    cls, every: int, patience: int, steps: int, weights: Params
  ) -> "Patience":
    """Of a run that takes no step yet, and what its weights are like."""
    scores = np.full(-(-steps // every), np.nan, np.float32)
    best = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), weights)
    return cls(every, patience, scores, best)

  def note(self, step: int, score: float, weights: Callable[[], Params]):
    """Takes an evaluation; a score equal to the best is not better."""
    best = np.nanmax(self.scores, initial=-np.inf)
    self.scores[-(-step // self.every) - 1] = score
    if score > best:
      self.best = weights()

  @property
  def exhausted(self) -> bool:
    """Whether the run is to end."""
    taken = self.scores[~np.isnan(self.scores)]
    if not taken.size:
      return False
    return taken.size - 1 - int(taken.argmax()) >= self.patience

  @property
  def evaluations(self) -> int:
    """How many there were."""
    return int(np.count_nonzero(~np.isnan(self.scores)))

  def saved(self) -> dict[str, Any]:
    """As a tree of arrays."""
    return {"scores": self.scores, "best": self.best}

  def restored(self, saved: Mapping[str, Any]) -> "Patience":
    """Of a run that goes on."""
    return dataclasses.replace(self, scores=saved["scores"], best=saved["best"])
