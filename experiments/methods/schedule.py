"""The learning rate over a run: one shape for every method."""

import dataclasses

import optax


@dataclasses.dataclass(frozen=True)
class Schedule:
  """From a peak learning rate to the learning rate of every step.

  Linear from 0 to the peak, then half a cosine to 0; or, where `constant`, the
  peak to the end, which averages over a trajectory want.

  Attributes:
    steps: The length of the run, at least 1.
    warmup: The share of the steps spent rising, in [0, 1). It leaves at least
      one step to fall in.
    constant: Whether the rate stays at its peak.

  Raises:
    ValueError: If `steps` or `warmup` is out of range.

  Example:
    >>> schedule = Schedule(100)
    >>> [round(float(schedule(1e-3)(step)), 6) for step in (0, 10, 55, 100)]
    [0.0, 0.001, 0.0005, 0.0]
    >>> held = dataclasses.replace(schedule, constant=True)
    >>> [round(float(held(1e-3)(step)), 6) for step in (0, 10, 55, 100)]
    [0.0, 0.001, 0.001, 0.001]
  """

  steps: int
  warmup: float = 0.1
  constant: bool = False

  def __post_init__(self):
    if self.steps < 1:
      raise ValueError(f"steps must be at least 1, got {self.steps}.")
    if not 0 <= self.warmup < 1:
      raise ValueError(f"warmup must be in [0, 1), got {self.warmup}.")
    if self._rise >= self.steps:
      raise ValueError(
        f"warmup must be a share of the steps that leaves some after it, got"
        f" {self.warmup} of {self.steps} steps."
      )

  @property
  def _rise(self) -> int:
    return round(self.warmup * self.steps)

  def __call__(self, peak: float) -> optax.Schedule:
    """The Optax schedule with this peak."""
    rise = self._rise
    if self.constant:
      # Optax's warmup_constant_schedule stays at 0 where there is no warm-up.
      ramp = optax.linear_schedule(0.0, peak, rise)
      return optax.join_schedules([ramp, lambda step: peak], [rise])
    return optax.warmup_cosine_decay_schedule(
      0.0, peak, warmup_steps=rise, decay_steps=self.steps
    )
