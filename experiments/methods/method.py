"""What a fine-tuning method is: a few functions and its hyperparameters."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array, Float

from experiments import probe
from experiments.classifier import Classifier
from experiments.data.split import Batch, Source
from experiments.form import Form

Params = Any  # a nested dict of arrays: backbone/..., head/kernel, head/bias

Schedule = Callable[[float], optax.Schedule]
"""From a peak learning rate to the learning rate of every step."""


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to fine-tune a classifier; subclass and override what differs.

  The fields of a subclass are its hyperparameters: they appear on the command
  line and in the results. The functions are called in the order in which they
  stand here; what a method has to remember between them (the initial weights,
  an average) lives in the optimizer's state, so `deploy` finds it there. None
  of them ever sees a target domain.

  As it stands, this class fits a linear head and trains nothing.
  """

  def prepare(
    self, model: Classifier, data: Source, key: jax.Array
  ) -> Classifier:
    """The model that training starts from; here, with a linear probe as head.

    Args:
      model: The pretrained backbone, and a head of zeros or of CLIP's words.
      data: The source domain.
      key: For what a method draws at random, such as the factors of LoRA.

    Returns:
      A model; `model` itself stays as it is.
    """
    del key
    return probe.fit_head(model, data)

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation | None:
    """The optimizer of all parameters; here None: there is nothing to train.

    Args:
      params: The parameters of the prepared model, as nested dicts.
      schedule: Call it with a peak learning rate. The shape and the length of
        the schedule belong to the loop.
      key: For masks and the like.

    Returns:
      An Optax transformation; `update` also receives `value`, the loss. None
      means that the method ends with `prepare`.
    """
    del params, schedule, key
    return None

  def wrap(self, params: Params, key: jax.Array) -> Form:
    """The form in which the parameters train; here as they are.

    Args:
      params: The parameters of the prepared model.
      key: The one that `transform` receives.

    Returns:
      `params`, or `gmixout_jax.MixedParams` made of them, whose `trainable`
      is then what the transformation updates.
    """
    del key
    return params

  def loss(
    self, model: Classifier, batch: Batch, key: jax.Array
  ) -> Float[Array, ""]:
    """What a step minimises; here the mean cross-entropy.

    Args:
      model: With the current parameters; traced.
      batch: `image` (uint8) and `label`.
      key: Another one at every step, for dropout and the like.

    Returns:
      A scalar.
    """
    del key
    return optax.softmax_cross_entropy_with_integer_labels(
      model(batch["image"]), batch["label"]
    ).mean()

  def deploy(self, opt_state: optax.OptState, params: Form) -> Params:
    """The weights to evaluate and keep; here the last ones.

    Args:
      opt_state: The state that `transform` ended with.
      params: The parameters after the last step, in their form.

    Returns:
      Parameters of the same structure and shapes.
    """
    del opt_state
    return params
