"""The recipe of a run: settings of a step that do not belong to the method."""

import dataclasses
from typing import Any

from experiments.methods.method import Method
from experiments.methods.optimizers import OptimizerName
from experiments.methods.schedule import Schedule, Shape


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How any method is trained; by default as the method says.

  Attributes:
    label_smoothing: The fraction of every label that is spread over all
      classes, in [0, 1).
    mixup: α of mixup's Beta distribution (https://arxiv.org/abs/1710.09412); 0
      is off. See `experiments.training.mixing`.
    cutmix: Likewise of CutMix (https://arxiv.org/abs/1905.04899). With both,
      each step does one of them, each with probability 1/2.
    clip_norm: The largest global norm of the gradients, above 0; None is off.
      Clipping comes after the mean over devices. Packed gradients have other
      norms than dense ones; frozen leaves do not count.
    accumulate: Micro-batches per step, at least 1; the number of images per
      step stays the same.
    optimizer: Replaces each AdamW of a method.
    schedule: How learning rates fall after the warm-up; see `Schedule`.
      Averages over a constant rate (SWA, SWAD) keep theirs.
    weight_decay: Replaces the method's own; None keeps it. On residuals
      (GMixout, Mixout, Random Mask) it pulls towards the anchor.

  Raises:
    ValueError: If one is out of range.

  Example:
    >>> Recipe(mixup=0.2, clip_norm=1.0).described()
    {'mixup': 0.2, 'clip_norm': 1.0}
  """

  label_smoothing: float = 0.0
  mixup: float = 0.0
  cutmix: float = 0.0
  clip_norm: float | None = None
  accumulate: int = 1
  optimizer: OptimizerName = "adamw"
  schedule: Shape = "cosine"
  weight_decay: float | None = None

  def __post_init__(self):
    if not 0 <= self.label_smoothing < 1:
      raise ValueError(
        f"label_smoothing must be in [0, 1), got {self.label_smoothing}."
      )
    for name in ("mixup", "cutmix"):
      if not 0 <= (value := getattr(self, name)) < float("inf"):
        raise ValueError(f"{name} must be finite and at least 0, got {value}.")
    if self.clip_norm is not None and not 0 < self.clip_norm < float("inf"):
      raise ValueError(
        f"clip_norm must be finite and above 0, got {self.clip_norm}."
      )
    if self.accumulate < 1:
      raise ValueError(
        f"accumulate must be at least 1 micro-batch, got {self.accumulate}."
      )
    decay = self.weight_decay
    if decay is not None and not 0 <= decay < float("inf"):
      raise ValueError(
        f"weight_decay must be finite and at least 0, got {decay}."
      )
    self.schedule_of(2, 0.0)  # knows which shapes and optimizers there are

  @property
  def mixes(self) -> bool:
    """Whether images are mixed with others."""
    return self.mixup > 0 or self.cutmix > 0

  @property
  def softens(self) -> bool:
    """Whether an image has a share of several labels."""
    return self.mixes or self.label_smoothing > 0

  def schedule_of(self, steps: int, warmup: float) -> Schedule:
    """The schedule for a run of so many steps."""
    return Schedule(
      steps,
      warmup,
      shape=self.schedule,
      optimizer=self.optimizer,
      weight_decay=self.weight_decay,
    )

  def described(self) -> dict[str, Any]:
    """What differs from the default; JSON.

    So result lines compare with older ones, which have no recipe.
    """
    return {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if getattr(self, field.name) != field.default
    }

  def check_batch(self, batch_size: int, devices: int = 1) -> None:
    """Whether a step's images can be cut up.

    Args:
      batch_size: Images of a step, on all devices.
      devices: That share them.

    Raises:
      ValueError: If they cannot be divided evenly.
    """
    if batch_size % (self.accumulate * devices):
      among = f" on each of {devices} devices" if devices > 1 else ""
      raise ValueError(
        f"a batch of {batch_size} images cannot be divided evenly into"
        f" accumulate={self.accumulate} micro-batches{among}."
      )

  def check_method(self, method: Method) -> None:
    """Whether a method's loss can be given a share of several labels.

    Raises:
      ValueError: If it cannot, and has to.
    """
    if method.takes_soft_labels():
      return
    for name in ("label_smoothing", "mixup", "cutmix"):
      if value := getattr(self, name):
        raise ValueError(
          f"{name} gives an image a share of several labels, which the loss of"
          f" {type(method).__name__} has no place for: it must be 0, got"
          f" {value}."
        )
