"""Methods that build on another one."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import optax
from jaxtyping import Array, Float

from experiments.data.batches import Batch
from experiments.data.source import Source
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.method import Member, Method, Params, Schedule
from experiments.methods.parametrization import Form
from experiments.methods.run import Combined, Run
from experiments.methods.validator import Validator
from experiments.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Composed(Method):
  """Delegates to another method; a subclass overrides what differs.

  To work on the finished runs of the other method, override `combine`.

  Attributes:
    of: The other method; by default full fine-tuning, as in the papers.
  """

  of: Method = dataclasses.field(default_factory=FullFinetuning)

  def check_learning_rate(self, full_finetuning_lr: float) -> None:
    """As the other method."""
    self.of.check_learning_rate(full_finetuning_lr)

  def advice_on_length(self, steps: int) -> str | None:
    """As the other method."""
    return self.of.advice_on_length(steps)

  def progress_bound(self, steps: int) -> float:
    """As the other method."""
    return self.of.progress_bound(steps)

  def prepare(
    self, model: Classifier, data: Source, key: jax.Array
  ) -> Classifier:
    """As the other method."""
    return self.of.prepare(model, data, key)

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation | None:
    """As the other method."""
    return self.of.transform(params, schedule, key)

  def parametrize(self, params: Params, key: jax.Array) -> Form:
    """As the other method."""
    return self.of.parametrize(params, key)

  def trains(self, params: Params) -> Any:
    """As the other method."""
    return self.of.trains(params)

  def takes_soft_labels(self) -> bool:
    """As the other method."""
    return self.of.takes_soft_labels()

  def loss(
    self, model: Classifier, batch: Batch, key: jax.Array
  ) -> Float[Array, ""]:
    """As the other method."""
    return self.of.loss(model, batch, key)

  def deploy(self, opt_state: optax.OptState, params: Form) -> Params:
    """As the other method."""
    return self.of.deploy(opt_state, params)

  def export(self, model: Classifier) -> Classifier:
    """As the other method."""
    return self.of.export(model)

  def snapshots(self, steps: int) -> tuple[int, ...]:
    """As the other method."""
    return self.of.snapshots(steps)

  def members(self) -> tuple[Member, ...]:
    """The runs of the other method."""
    return self.of.members()

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """As the other method."""
    return self.of.combine(runs, validator)


@dataclasses.dataclass(frozen=True)
class Trained(Composed):
  """Changes how another method trains, so it needs a run of its own.

  A subclass that overrides `wrap` or `transform` sees dense parameters: the
  other method then trains unpacked, with the same weights.

  Raises:
    ValueError: If the other method is made of several runs.
  """

  def __post_init__(self):
    cls = type(self)
    if cls.wrap is not Trained.wrap or cls.transform is not Trained.transform:
      object.__setattr__(self, "of", _dense(self.of))
    if (count := len(self.of.members())) != 1:
      raise ValueError(
        f"{type(self).__name__} changes how one run trains, but"
        f" {type(self.of).__name__} is made of {count} runs; compose them the"
        " other way round."
      )

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """The other method's, changed by `wrap`."""
    transform = self.of.transform(params, schedule, key)
    if transform is None:
      raise ValueError(
        f"{type(self).__name__} changes how a method trains, but"
        f" {type(self.of).__name__} trains nothing."
      )
    return self.wrap(transform)

  def wrap(
    self, optimizer: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """Wraps the other method's transformation; here unchanged."""
    return optimizer

  def members(self) -> tuple[Member, ...]:
    """A run of its own."""
    return (Member(self),)


@dataclasses.dataclass(frozen=True)
class Pool(Composed):
  """Combines several runs that differ in learning rate and seed.

  Run i has the learning rates of the other method times factors[i mod n], and
  its own order of the images. Methods with equal pools share all runs. Each run
  starts from the same weights, head included.

  Attributes:
    runs: How many.
    factors: Of the learning rates, in turn. 1, 1/3 and 5/3 give DiWA's "mild"
      1e-5, 3e-5 and 5e-5 from a rate of 3e-5.

  Raises:
    ValueError: If there is no run, a factor is not positive, or the other
      method combines several runs itself.
  """

  runs: int = 6
  factors: tuple[float, ...] = (1.0, 1 / 3, 5 / 3)

  def __post_init__(self):
    if self.runs < 1:
      raise ValueError(f"runs must be at least 1, got {self.runs}.")
    if not self.factors or min(self.factors) <= 0:
      raise ValueError(f"factors must be positive, got {self.factors}.")
    if (count := len(self.of.members())) != 1:
      raise ValueError(
        f"{type(self).__name__} is made of methods of one run, but"
        f" {type(self.of).__name__} is made of {count}."
      )

  def members(self) -> tuple[Member, ...]:
    """The runs of the pool; the first one is the other method's own."""
    return tuple(
      Member(with_rates_times(self.of, self.factor(i)).members()[0].method, i)
      for i in range(self.runs)
    )

  def factor(self, run: int) -> float:
    """Of the learning rates of a run."""
    return self.factors[run % len(self.factors)]

  def ingredients(
    self, runs: Sequence[Run], validator: Validator
  ) -> list[Params]:
    """The weights of each run, as the other method combines them."""
    return [self.of.combine([run], validator).weights[0] for run in runs]


def _dense(method: Method) -> Method:
  """The method with whole weights, gradients and optimizer state."""
  if isinstance(method, Composed):
    return dataclasses.replace(method, of=_dense(method.of))
  if getattr(method, "compact", False):
    return dataclasses.replace(method, compact=False)  # pyright: ignore
  return method


def with_rates_times(method: Method, factor: float) -> Method:
  """The method with all its learning rates multiplied.

  Raises:
    ValueError: If it has no learning rate.

  Example:
    >>> with_rates_times(FullFinetuning(learning_rate=0.5), 2.0)
    FullFinetuning(learning_rate=1.0, weight_decay=0.0)
  """
  changes = {
    field.name: factor * getattr(method, field.name)
    for field in dataclasses.fields(method)
    if field.name.endswith("learning_rate")
  }
  if isinstance(method, Composed):
    changes["of"] = with_rates_times(method.of, factor)
  if not changes:
    raise ValueError(f"{type(method).__name__} has no learning rate to vary.")
  return dataclasses.replace(method, **changes)
