"""From an opened task and a method to a result line."""

import time
from collections.abc import Callable
from typing import Protocol

import jax
import numpy as np
from flax import nnx

from experiments.harness.cell import Cell
from experiments.methods import Method
from experiments.models import evaluation
from experiments.reporting import records
from experiments.tasks.task import Opened
from experiments.training.runs import Outcome


class Outcomes(Protocol):
  """Where a method's outcome comes from: runs, or finished checkpoints."""

  def outcome(self, method: Method, /) -> Outcome:
    """What the method makes of them."""
    ...


def measure(
  opened: Opened,
  model: nnx.Module,
  *,
  mesh: jax.sharding.Mesh | None = None,
  progress: evaluation.Progress = lambda name, done, total: None,
) -> records.Record:
  """The metrics of a model on a task; see `evaluation.evaluate`.

  Args:
    opened: The task.
    model: From uint8 images to logits.
    mesh: Whose devices share the images.
    progress: Called with a set's name, its images that are evaluated, and all
      of them.

  Returns:
    What `evaluate` returns; under `details`, "validation" too where ID accuracy
    is on other images; and the task's `headline`, if it has its own.
  """
  validation = opened.source.validation
  found = evaluation.evaluate(
    model,
    validation if opened.test is None else opened.test,
    opened.ood,
    train_counts=opened.train_counts,
    by_domain=opened.balanced,
    mesh=mesh,
    progress=progress,
  )
  if opened.test is not None:
    logits = evaluation.logits(model, validation, mesh=mesh)
    found["details"]["validation"] = evaluation.measure(
      logits, validation.labels
    )
  if opened.headline is not None:
    found["headline"] = opened.headline(found)
  return found


def line(
  cell: Cell,
  outcomes: Outcomes,
  measure: Callable[[nnx.Module], records.Record],
  steps: int,
  export: Callable[[nnx.Module], None] | None = None,
) -> records.Record:
  """Finishes what a cell needs of some runs, and evaluates it.

  Args:
    cell: Which.
    outcomes: Runs planned for its method and perhaps for others; or finished
      checkpoints.
    measure: From the model to its metrics.
    steps: Of a run that is not stopped early.
    export: Called with the model, before it is measured.

  Returns:
    The line for the results file.
  """
  began = time.perf_counter()
  outcome = outcomes.outcome(cell.method)
  if export is not None:
    export(outcome.model)
  fitted_at = time.perf_counter()
  metrics = measure(outcome.model)
  finished_at = time.perf_counter()
  return {
    "config": cell.config,
    "seed": cell.seed,
    **records.environment(),
    "metrics": metrics,
    "progress_bound": cell.method.progress_bound(_taken(outcome) or steps),
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


def _taken(outcome: Outcome) -> int:
  """Steps of a run, which may have ended early; 0 if there was none."""
  return outcome.cost.steps // max(outcome.cost.runs, 1)
