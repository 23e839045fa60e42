"""A fine-tuning method: a few functions and its hyperparameters."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import optax
from jaxtyping import Array, Float

from experiments.data.batches import Batch
from experiments.data.source import Source
from experiments.methods.parametrization import Form
from experiments.methods.run import Combined, Params, Run
from experiments.methods.schedule import Schedule
from experiments.methods.validator import Validator
from experiments.models import probe
from experiments.models.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to fine-tune a classifier; subclass and override what differs.

  The fields of a subclass are its hyperparameters: they appear on the command
  line and in the results. None of the functions ever sees OOD images. Fields
  whose names end in "learning_rate" reach a step only through the schedule, see
  `transform`, so that runs at several rates share one compiled step.

  First `members` and `snapshots` are called, to plan the runs. A run calls
  `prepare`, `transform` and `parametrize` once each, `loss` at every step, and
  `deploy` and then `export` wherever evaluation weights are needed: for a
  snapshot, to score a checkpoint, and at the end. `export` is also called
  before the first step, on what `prepare` returned. State of the method (the
  initial weights, an average) is kept in the optimizer's state, where `deploy`
  finds it. `combine` comes last, when all runs have ended.

  Most methods are one run. A soup combines many, and several soups can share
  the same runs. This class itself fits a linear head and trains nothing.
  """

  title: ClassVar[str] = ""  # as people write it, if not "Like its name"

  def check_learning_rate(self, full_finetuning_lr: float) -> None:
    """Warns if the learning rate is far from a rule of thumb.

    Args:
      full_finetuning_lr: The peak learning rate of full fine-tuning on the
        task.

    Raises:
      ValueError: If there is no rule, as there is none here.
    """
    raise ValueError(
      f"--full-finetuning-lr {full_finetuning_lr} has no meaning for"
      f" {type(self).__name__}: GMixout alone has a rule for its rate."
    )

  def advice_on_length(self, steps: int) -> str | None:
    """A sentence about settings that do not fit a run's length; here None.

    Args:
      steps: The length of the run.
    """
    del steps
    return None

  def progress_bound(self, steps: int) -> float:
    """The largest share of the way to the optimum that a run can cover.

    Args:
      steps: The length of the run.

    Returns:
      In [0, 1]; here 1, no bound.
    """
    del steps
    return 1.0

  def prepare(
    self, model: Classifier, data: Source, key: jax.Array
  ) -> Classifier:
    """The model that training starts from.

    Here a zero-shot head is kept, and a head of zeros is replaced by a linear
    probe, so that all methods of a comparison start from the same head.

    Args:
      model: The pretrained backbone, and a zero-shot head or one of zeros.
      data: The training and the validation images.
      key: For what a method draws at random, such as the factors of LoRA.

    Returns:
      A model; `model` itself is not changed.
    """
    del key
    return probe.fit_head(model, data) if probe.is_blank(model) else model

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation | None:
    """The optimizer of all parameters; here None: there is nothing to train.

    It is called before the first step, for the initial state, and again
    whenever a step is traced.

    Args:
      params: The parameters of the prepared model, as nested dicts; in a trace
        only their shapes.
      schedule: Call its `make_optimizer` with a peak learning rate, or the
        schedule itself for the learning rate alone. The loop decides shape and
        length of the schedule and the kind of optimizer, by default AdamW.
      key: For masks and the like.

    Returns:
      An Optax transformation; `update` also receives `value`, the loss. None
      means that the method ends with `prepare`.
    """
    del params, schedule, key
    return None

  def parametrize(self, params: Params, key: jax.Array) -> Form:
    """The form in which the parameters train; here unchanged.

    Args:
      params: The parameters of the prepared model.
      key: The one that `transform` receives.

    Returns:
      `params`, or `gmixout_jax.MixedParams` made of them, whose `trainable`
      is then what the transformation updates.
    """
    del key
    return params

  def trains(self, params: Params) -> Any:
    """Which parameters train; here all.

    The others get no gradient, and none is reduced for them. This is not called
    if `parametrize` packs, which leaves out what is frozen.

    Args:
      params: The parameters as they train.

    Returns:
      A bool for each leaf.
    """
    return jax.tree.map(lambda leaf: True, params)

  def takes_soft_labels(self) -> bool:
    """Whether `loss` takes distributions over classes as labels; here yes.

    If not, label smoothing, mixup and CutMix are refused.
    """
    return True

  def loss(
    self, model: Classifier, batch: Batch, key: jax.Array
  ) -> Float[Array, ""]:
    """What a step minimises; here the mean cross-entropy.

    Args:
      model: With the current parameters; traced.
      batch: `image` (uint8, or floats in [0, 1] if they were mixed) and
        `label`: numbers of classes, or distributions over them
        [batch, classes].
      key: Another one at every step, for dropout and the like.

    Returns:
      A scalar.
    """
    del key
    logits, labels = model(batch["image"]), batch["label"]
    if labels.ndim == 2:
      return optax.softmax_cross_entropy(logits, labels).mean()
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, labels
    ).mean()

  def deploy(self, opt_state: optax.OptState, params: Form) -> Params:
    """The evaluation weights; here the last training weights.

    Args:
      opt_state: The state that `transform` ended with.
      params: The parameters after the last step, in their form.

    Returns:
      Parameters of the same structure and shapes.
    """
    del opt_state
    return params

  def export(self, model: Classifier) -> Classifier:
    """The classifier of a trained model; here the model itself.

    For a method whose `prepare` added something: low-rank factors to merge, or
    a text tower to build a head from.

    Args:
      model: What `prepare` returned, with any weights.

    Returns:
      A classifier of the structure that `prepare` was given.
    """
    return model

  def snapshots(self, steps: int) -> tuple[int, ...]:
    """The steps after which `combine` needs the weights; here none.

    Args:
      steps: The length of the run.

    Returns:
      Numbers in [1, steps], ascending.
    """
    del steps
    return ()

  def members(self) -> "tuple[Member, ...]":
    """The runs that the method combines; here one, its own."""
    return (Member(self),)

  def combine(self, runs: Sequence[Run], validator: Validator) -> Combined:
    """Combines the runs; here the weights of the only one.

    Args:
      runs: Of `members`, in their order.
      validator: The validation split, the only data to choose by.

    Returns:
      The evaluation weights, or several whose predictions are averaged.
    """
    del validator
    return Combined((runs[0].params,))


class Member(NamedTuple):
  """A run that a method combines; methods share equal members.

  Attributes:
    method: What it trains with.
    repeat: 0 is the run of `method` on its own; any other number gives another
      order of the images and other random draws.
  """

  method: Method
  repeat: int = 0
