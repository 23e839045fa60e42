"""What a run cost: time, memory, work, and how many weights it changed."""

import dataclasses

import jax
import numpy as np

from experiments.methods import parametrization
from experiments.methods.method import Method
from experiments.methods.run import Params
from experiments.training import faults
from experiments.training.run_checkpoints import Trail
from experiments.training.step_costs import StepCosts, reduced_bytes


@dataclasses.dataclass(frozen=True)
class Stats:
  """What a fit cost.

  Attributes:
    steps: Optimizer steps taken.
    steps_per_second: Over all steps but the first, which compiles.
    first_step_seconds: The first step, with its compilation.
    changed_parameters: Weights that one step changes, measured: the most
      nonzero entries of any step's updates. Mixout's include those that it
      swaps back, which makes 1 − p² of a matrix and not 1 − p.
    trained_parameters: Evaluation weights that differ from the initial ones (of
      LoRA, the factors). Measured likewise.
    optimizer_bytes: Size of the optimizer's state, anchors included.
    reduced_bytes: Size of the gradients that devices send each other in a step,
      if there are several.
    step_flops: Floating-point operations of a step on one device, by XLA's
      count: see `step_costs`.
    step_peak_bytes: The memory that a step takes there, likewise.
    snapshot_bytes: Size of the snapshots, on the host.
    skipped_steps: Steps that changed nothing, as their loss or gradient was not
      finite.
  """

  steps: int = 0
  steps_per_second: float = 0.0
  first_step_seconds: float = 0.0
  changed_parameters: int = 0
  trained_parameters: int = 0
  optimizer_bytes: int = 0
  reduced_bytes: int = 0
  step_flops: float = 0.0
  step_peak_bytes: int = 0
  snapshot_bytes: int = 0
  skipped_steps: int = 0


def measured(
  trail: Trail,
  method: Method,
  eval_params: Params,
  before: Params,
  costs: StepCosts,
) -> Stats:
  """The cost of a finished run.

  Args:
    trail: Of the run.
    method: Of it.
    eval_params: Its evaluation weights.
    before: Those that it started from.
    costs: Of one step.
  """
  first, seconds, count = trail.clock
  params, opt_state = trail.state
  kept = jax.tree.leaves(trail.snapshots)
  return Stats(
    steps=trail.step,
    steps_per_second=float(count / seconds) if count else 0.0,
    first_step_seconds=float(first),
    changed_parameters=trail.moved,
    trained_parameters=_count_differing(eval_params, before),
    optimizer_bytes=parametrization.state_bytes(
      params, faults.unguarded(opt_state)
    ),
    reduced_bytes=reduced_bytes(
      jax.eval_shape(parametrization.trainable, params),
      parametrization.trains(method, params),
    ),
    step_flops=costs.flops,
    step_peak_bytes=costs.peak_bytes,
    snapshot_bytes=sum(leaf.nbytes for leaf in kept),
    skipped_steps=faults.skipped(opt_state),
  )


def _count_differing(one: Params, other: Params) -> int:
  """On the host: it happens once, and is not worth a program."""
  one, other = jax.device_get((one, other))
  counts = jax.tree.map(lambda a, b: np.count_nonzero(a != b), one, other)
  return int(sum(jax.tree.leaves(counts)))
