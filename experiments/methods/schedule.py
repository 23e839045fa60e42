"""The learning rate over a run, and the optimizer: one for every method."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import optax

from experiments.methods import optimizers

Shape = Literal["cosine", "linear", "constant", "polynomial", "exponential"]

SHAPES: tuple[Shape, ...] = get_args(Shape)

# From the peak and the steps after the warm-up to the rest of the schedule.
_FALLS: dict[Shape, Callable[[Any, int], optax.Schedule]] = {
  "cosine": optax.cosine_decay_schedule,
  "linear": lambda peak, steps: optax.linear_schedule(peak, 0.0, steps),
  "constant": lambda peak, steps: lambda step: peak,
  "polynomial": lambda peak, steps: optax.polynomial_schedule(
    peak, 0.0, power=2, transition_steps=steps
  ),
  "exponential": lambda peak, steps: optax.exponential_decay(
    peak, transition_steps=steps, decay_rate=0.01
  ),
}


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The learning rate of every step, from its peak.

  Linear from 0 to the peak, then by default half a cosine to 0; or, if
  `constant`, the peak to the end, as averages over a trajectory need it.

  Attributes:
    steps: The length of the run, at least 1.
    warmup: The fraction of warm-up steps, in [0, 1). At least one step must
      follow the warm-up.
    constant: Whether the rate stays at its peak, whatever the shape.
    shape: How it falls: "cosine"; "linear"; "constant", not at all;
      "polynomial", with the square of the remaining fraction; "exponential", to
      a hundredth of the peak.
    optimizer: Which one `make_optimizer` makes.
    weight_decay: Of that optimizer; None leaves it to the method.
    made: All schedules that were made, by their peaks, for display.
    asked: The peaks of all of them, in order.
    peaks: Values that replace these peaks, float32 [n], perhaps traced, so that
      one compiled step serves any peaks. See `fresh`.

  Raises:
    ValueError: If `steps` or `warmup` is out of range, or `shape` or
      `optimizer` is unknown.

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
  shape: Shape = "cosine"
  optimizer: optimizers.OptimizerName = "adamw"
  weight_decay: float | None = None
  made: dict[float, optax.Schedule] = dataclasses.field(
    default_factory=dict, repr=False, compare=False
  )
  asked: list[float] = dataclasses.field(
    default_factory=list, repr=False, compare=False
  )
  peaks: Any = dataclasses.field(default=None, repr=False, compare=False)

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
    if self.shape not in SHAPES:
      raise ValueError(f"schedule must be one of {SHAPES}, got {self.shape!r}.")
    if self.optimizer not in optimizers.NAMES:
      raise ValueError(
        f"optimizer must be one of {optimizers.NAMES}, got {self.optimizer!r}."
      )

  @property
  def _rise(self) -> int:
    return round(self.warmup * self.steps)

  def __call__(self, peak: float) -> optax.Schedule:
    """The Optax schedule with this peak.

    Raises:
      ValueError: If it is negative or not finite, or there are no `peaks` left.
    """
    if not 0 <= peak < float("inf"):
      raise ValueError(
        f"a learning rate must be finite and at least 0, got {peak}."
      )
    number = len(self.asked)
    self.asked.append(peak)
    if self.peaks is None:
      self.made[peak] = schedule = self._make(peak)
      return schedule
    if number >= len(self.peaks):
      raise ValueError(
        f"a schedule was asked for {len(self.peaks)} peaks before, and now for"
        f" more, of which the next is {peak}: a method must ask for as many"
        " whatever its learning rates are."
      )
    return self._make(self.peaks[number])

  def fresh(self, peaks: Any = None) -> "Schedule":
    """A copy that has made nothing yet.

    Args:
      peaks: Values that replace the peaks it is called with, in order.
    """
    return dataclasses.replace(self, made={}, asked=[], peaks=peaks)

  def _make(self, peak: Any) -> optax.Schedule:
    rise = self._rise
    shape: Shape = "constant" if self.constant else self.shape
    # Optax's own with a warm-up take no traced peak; and that of a constant
    # stays at 0 where there is no warm-up.
    ramp = optax.linear_schedule(0.0, peak, rise)
    fall = _FALLS[shape](peak, self.steps - rise)
    return optax.join_schedules([ramp, fall], [rise])

  def make_optimizer(
    self, peak: float, *, weight_decay: float = 0.0
  ) -> optax.GradientTransformation:
    """The optimizer of some parameters; by default AdamW.

    Args:
      peak: The peak learning rate.
      weight_decay: The method's own, at least 0.
    """
    if self.weight_decay is not None:
      weight_decay = self.weight_decay
    return optimizers.make(
      self.optimizer, self(peak), weight_decay=weight_decay
    )
