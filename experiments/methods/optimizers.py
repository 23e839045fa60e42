"""The optimizers that may replace a method's AdamW, by name."""

from collections.abc import Callable
from typing import Literal, get_args

import optax

OptimizerName = Literal["adamw", "nadamw", "sgd", "lamb", "lion", "adafactor"]

NAMES: tuple[OptimizerName, ...] = get_args(OptimizerName)

Make = Callable[[optax.ScalarOrSchedule, float], optax.GradientTransformation]


def _sgd(
  rate: optax.ScalarOrSchedule, weight_decay: float
) -> optax.GradientTransformation:
  """With a momentum of 0.9, and L2 as a part of the gradient, as usual."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum=0.9)
  )


def _adafactor(
  rate: optax.ScalarOrSchedule, weight_decay: float
) -> optax.GradientTransformation:
  """Without the scale of the parameters.

  The residuals of GMixout begin at 0, where that scale would make a rate mean
  something else. `optax.adafactor` does not multiply its decay by the rate;
  here it is decoupled as AdamW's.
  """
  return optax.chain(
    optax.scale_by_factored_rms(),
    optax.clip_by_block_rms(1.0),
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_learning_rate(rate),
  )


_MAKE: dict[OptimizerName, Make] = {
  "adamw": lambda rate, decay: optax.adamw(rate, weight_decay=decay),
  "nadamw": lambda rate, decay: optax.nadamw(rate, weight_decay=decay),
  "sgd": _sgd,
  "lamb": lambda rate, decay: optax.lamb(rate, weight_decay=decay),
  "lion": lambda rate, decay: optax.lion(rate, weight_decay=decay),
  "adafactor": _adafactor,
}


def make(
  name: OptimizerName,
  rate: optax.ScalarOrSchedule,
  *,
  weight_decay: float = 0.0,
) -> optax.GradientTransformation:
  """An optimizer.

  Args:
    name: One of `NAMES`.
    rate: The learning rate, or its schedule.
    weight_decay: At least 0. Decoupled and multiplied by the rate, except for
      "sgd", where it is added to the gradient. It pulls weights towards 0, and
      residuals of GMixout towards the anchor.

  Raises:
    ValueError: If there is none of this name, or the decay is negative.

  Example:
    >>> import jax.numpy as jnp
    >>> lion, params = make("lion", 0.5), jnp.ones(2)
    >>> updates, _ = lion.update(jnp.ones(2), lion.init(params), params)
    >>> updates.tolist()
    [-0.5, -0.5]
  """
  if name not in _MAKE:
    raise ValueError(f"optimizer must be one of {NAMES}, got {name!r}.")
  if not weight_decay >= 0:
    raise ValueError(f"weight_decay must be at least 0, got {weight_decay}.")
  return _MAKE[name](rate, weight_decay)
