"""The line of results of one method on one task."""

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from flax import nnx

from experiments.methods import Method
from experiments.reporting import records
from experiments.training.runs import Outcome


class Outcomes(Protocol):
  """Where a method's outcome comes from: runs, or finished checkpoints."""

  def outcome(self, method: Method, /) -> Outcome:
    """What the method makes of them."""
    ...


def line(
  config: records.Record,
  seed: int,
  runs: Outcomes,
  method: Method,
  measure: Callable[[nnx.Module], records.Record],
  export: Callable[[nnx.Module], None] | None = None,
) -> records.Record:
  """Finishes what a method needs of some runs, and evaluates it.

  Args:
    config: All that the numbers depend on but for the seed; JSON.
    seed: Of everything random.
    runs: Planned for the method and perhaps for others.
    method: Which one.
    measure: From the model to its metrics.
    export: Called with the model, before it is measured.

  Returns:
    The line for the results file.
  """
  began = time.perf_counter()
  outcome = runs.outcome(method)
  if export is not None:
    export(outcome.model)
  fitted_at = time.perf_counter()
  metrics = measure(outcome.model)
  finished_at = time.perf_counter()
  return {
    "config": config,
    "seed": seed,
    **records.environment(),
    "metrics": metrics,
    "stats": records.plain(outcome.cost),
    "notes": outcome.notes,
    # Of all its runs, one after the other; those of skipped steps may be NaN.
    "losses": [
      round(float(loss), 5) if np.isfinite(loss) else None
      for losses in outcome.losses
      for loss in losses
    ],
    "seconds": {
      "fit": round(fitted_at - began, 2),
      "evaluate": round(finished_at - fitted_at, 2),
    },
  }
