"""SWAD: the mean of the weights over the flat stretch of one run."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import optax

from experiments.methods.composition import Trained
from experiments.methods.method import Params, Schedule
from experiments.methods.run import Combined, Run
from experiments.methods.validator import Validator
from gmixout_jax import averaging


@dataclasses.dataclass(frozen=True)
class SWAD(Trained):
  """Averages every step of a window that the validation losses choose.

  Cha et al., 2021 (https://arxiv.org/abs/2102.08604). The run has a constant
  learning rate. The weights are averaged over each of its segments, and
  `gmixout_jax.averaging.swad_window` chooses among these.

  All segment means are kept on the host until the end; the authors keep only
  those that the window may still need.

  Attributes:
    evaluations: Segments of the run, at least 1; the paper has 50 of 100 steps.
    converge: N_s, see `swad_window`.
    tolerance: N_e.
    ratio: r.
  """

  title: ClassVar[str] = "SWAD"
  evaluations: int = 30
  converge: int = 3
  tolerance: int = 6
  ratio: float = 1.3

  def __post_init__(self):
    super().__post_init__()
    if self.evaluations < 1:
      raise ValueError(
        f"evaluations must be at least 1, got {self.evaluations}."
      )

  def segment(self, steps: int) -> int:
    """Steps from one evaluation to the next."""
    return max(1, steps // self.evaluations)

  def snapshots(self, steps: int) -> tuple[int, ...]:
    """The end of every segment."""
    every = self.segment(steps)
    return tuple(range(every, steps + 1, every))

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """The other method's, at a constant rate and with the segment's mean."""
    constant = dataclasses.replace(schedule, constant=True)
    transform = super().transform(params, constant, key)
    return averaging.average(
      transform,
      averaging.segments(every=self.segment(schedule.steps)),
      deploy=self.of.deploy,
    )

  def deploy(self, opt_state: optax.OptState, params: Params) -> Params:
    """The mean of the segment so far."""
    return averaging.average_params(opt_state, params)

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """The mean of the segments in the window."""
    segments = [snapshot.params for snapshot in runs[0].snapshots]
    losses = [validator.loss(segment) for segment in segments]
    window = averaging.swad_window(
      losses,
      converge=self.converge,
      tolerance=self.tolerance,
      ratio=self.ratio,
    )
    params = averaging.mean(segments[window.start : window.end + 1])
    combined = self.of.combine([runs[0]._replace(params=params)], validator)
    steps = [runs[0].snapshots[i].step for i in window]
    return dataclasses.replace(
      combined,
      notes=combined.notes | {"first_segment_ends": steps[0], "ends": steps[1]},
    )
