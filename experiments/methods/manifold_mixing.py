"""The manifold mixing model soup: shares by component, found by search."""

import dataclasses
import gc
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from experiments.methods.composition import Pool
from experiments.methods.run import Combined, Run
from experiments.methods.validator import Validator
from gmixout_jax import averaging


@dataclasses.dataclass(frozen=True)
class ManifoldMixing(Pool):
  """Mixes the runs one by one, with one factor per component.

  Fassold, 2023 (https://arxiv.org/abs/2309.08610); see
  `gmixout_jax.averaging.manifold_soup` for bounds and acceptance. The joint
  refinement, which the authors' code has switched off, is left out.

  Attributes:
    depth: Parts of a tensor's name that make a component. Three of the authors'
      "8 components" have an effect: tower, head, bias of the head.
    threshold: τ of the short-circuit.
    budget: Evaluations of the validation split per search and component.
    optimizer: A name of Nevergrad's. NGOpt chooses one by itself, Cobyla in the
      authors' runs.
  """

  title: ClassVar[str] = "Manifold mixing"
  depth: int = 2
  threshold: float = 0.998
  budget: int = 30
  optimizer: str = "NGOpt"

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """The soup."""
    soup = averaging.manifold_soup(
      self.ingredients(runs, validator),
      validator.accuracy,
      self.minimise,
      depth=self.depth,
      threshold=self.threshold,
      budget=self.budget,
    )
    shares = {
      name: [round(share, 4) for share in own]
      for name, own in soup.shares.items()
    }
    return Combined(
      (soup.params,),
      soup.ingredients,
      {
        "shares": shares,
        "skipped": list(soup.skipped),
        "rejected": list(soup.rejected),
      },
    )

  def minimise(
    self,
    loss: Callable[[np.ndarray], float],
    start: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    budget: int,
  ) -> np.ndarray:
    """Searches a box with Nevergrad; the same seed at every call.

    Raises:
      ValueError: If Nevergrad has no optimizer of that name.
    """
    import nevergrad  # five seconds, and only this method needs it

    if self.optimizer not in nevergrad.optimizers.registry:
      raise ValueError(
        f"optimizer must be one of Nevergrad's, got {self.optimizer!r}."
      )
    before = set(threading.enumerate())
    with warnings.catch_warnings():
      # Before the step is set Nevergrad warns that the box is small beside it;
      # SciPy warns that it corrects the tolerance that Nevergrad hands it.
      warnings.simplefilter("ignore")
      box = nevergrad.p.Array(init=np.clip(start, low, high))
      box.set_bounds(low, high)
      # With Nevergrad's step of 1 the first points all end on the bounds.
      box.set_mutation(sigma=float(np.max(high - low)) / 6)
      box.random_state.seed(0)
      search = nevergrad.optimizers.registry[self.optimizer](box, budget=budget)
      best = np.asarray(search.minimize(loss).value)
      # Nevergrad runs Cobyla in a thread that goes on, and goes on warning,
      # until its optimizer is gone.
      del search
      gc.collect()
      for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
    return np.clip(best, low, high)
