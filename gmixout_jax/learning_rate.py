"""Which learning rate to take, and how far a run can bring the anchor."""

import math
from typing import Any, overload

import jax
import jax.core
import numpy as np
import optax

_FACTOR, _STEPS = 5.0, 10
"""Times the rate of full fine-tuning, at so many steps an episode."""

_BELOW, _ABOVE = 1, 1 / 3
"""How the rate falls with the steps of an episode, below `_STEPS` and above."""


@overload
def gmixout_learning_rate(
  full_finetuning_lr: float, *, resample_every: int = 10
) -> float: ...


@overload
def gmixout_learning_rate(
  full_finetuning_lr: optax.Schedule, *, resample_every: int = 10
) -> optax.Schedule: ...


def gmixout_learning_rate(
  full_finetuning_lr: float | optax.Schedule, *, resample_every: int = 10
) -> float | optax.Schedule:
  r"""The learning rate to start from, for Adam and similar optimizers.

  .. math:: \eta = 5 \, \eta_{\text{full}} \, (10 / k)^a, \qquad
    a = 1 \text{ for } k < 10, \; 1/3 \text{ above}

  A rule of thumb for ``rescale=True``, measured and not derived: search around
  it. The rates with the best ID accuracy were, over full fine-tuning's, 5 at
  k = 10 and 50 at k = 1 for a ViT-Ti/16, 5 to 15 and 45 for a small CLIP; the
  smallest rates within a standard error of the best 15 and 150, and 1.7 and 15
  (docs/results/tables.md). A smaller rate is safer out of distribution, and
  with ``moments="reset"``.

  The factor is much smaller than 1/((1 − λ)(1 − p)), although the anchor
  receives only that share of what the training weights learn: with a larger
  rate the training weights diverge before the anchor catches up. If a run is
  too short, use a smaller k instead: see `gmixout_progress`.

  Args:
    full_finetuning_lr: η_full, the rate of full fine-tuning on the task: its
      peak, a number above 0; or an Optax schedule step → rate.
    resample_every: k, optimizer steps per episode, at least 1.

  Returns:
    η for the residual's optimizer: a number, or the schedule times the factor
    if a schedule was given.

  Raises:
    ValueError: If an argument is out of range.

  Example:
    >>> import optax
    >>> import gmixout_jax as gx
    >>> f"{gx.gmixout_learning_rate(1e-5, resample_every=10):.0e}"
    '5e-05'
    >>> cosine = optax.cosine_decay_schedule(1e-5, decay_steps=100)
    >>> f"{gx.gmixout_learning_rate(cosine)(50):.1e}"
    '2.5e-05'
  """
  _check_range(
    "resample_every",
    resample_every,
    1,
    math.inf,
    "a number of steps, at least 1",
  )
  exponent = _BELOW if resample_every < _STEPS else _ABOVE
  falling = (_STEPS / resample_every) ** exponent
  if callable(full_finetuning_lr):
    schedule = full_finetuning_lr
    return lambda step: _FACTOR * falling * schedule(step)
  _check_rate("full_finetuning_lr", full_finetuning_lr)
  return _FACTOR * full_finetuning_lr * falling


def gmixout_progress(
  steps: float,
  *,
  resample_every: int | None = 10,
  anchor_decay: float = 0.3,
  sparsity: float = 0.9,
  rescale: bool = True,
) -> float:
  r"""The largest share of the way to the optimum that the anchor can cover.

  .. math:: 1 - (1 - (1 - \lambda) s)^{T / k}, \qquad
    \text{without rescale} \quad 1 - \lambda^{T / k}

  with T = `steps`, k = `resample_every`, λ = `anchor_decay` and s = 1 −
  `sparsity`. An episode that reaches the optimum takes the training weights all
  of the remaining way, and the anchor (1 − λ)s of it (1 − λ without rescale).
  The bound is exact for the outputs of a linear model whose every episode fits
  its targets; a real run that does not overshoot stays below. At λ = 0.3 and
  p = 0.9, half of the way takes ten episodes, and 95 % needs k ≤ T(1−λ)s/3.

  Args:
    steps: T, the optimizer steps of the run, at least 0.
    resample_every: k, optimizer steps per episode, at least 1. None never
      redraws: the run is one episode, which counts in full from the first step,
      as `gmixout_eval_params` takes (1 − λ) of an unfinished episode too.
    anchor_decay: λ in [0, 1].
    sparsity: p in [0, 1), as for `gmixout`. A leaf with few columns keeps a
      fraction other than 1 − p; use that fraction for its own bound.
    rescale: As for `gmixout`.

  Returns:
    A fraction in [0, 1]. T/k is not rounded, although the anchor changes only
    at the ends of episodes. So for T < k it is below what the evaluation
    weights of the unfinished episode may reach, which is the value at T = k.

  Raises:
    ValueError: If an argument is out of range or a schedule.

  Example:
    >>> import gmixout_jax as gx
    >>> f"{gx.gmixout_progress(100):.2f} {gx.gmixout_progress(400):.2f}"
    '0.52 0.95'
    >>> f"{gx.gmixout_progress(100, rescale=False):.5f}"
    '0.99999'
  """
  for name, value in (
    ("resample_every", resample_every),
    ("anchor_decay", anchor_decay),
  ):
    if callable(value):
      raise ValueError(
        f"{name} must be a number here, got the schedule {value!r}: multiply"
        " 1 - gmixout_progress(...) over stretches in which it is constant."
      )
  _check_range("steps", steps, 0, math.inf, "a finite number >= 0")
  if resample_every is not None:
    _check_range(
      "resample_every", resample_every, 1, math.inf, "at least 1, or None"
    )
  _check_range("sparsity", sparsity, 0, 1, "in [0, 1)")
  if anchor_decay != 1:
    _check_range("anchor_decay", anchor_decay, 0, 1, "in [0, 1]")
  if steps == 0 or anchor_decay == 1:
    return 0.0
  episodes = 1.0 if resample_every is None else steps / resample_every
  if not rescale or sparsity == 0:
    if anchor_decay == 0:
      return 1.0
    return -math.expm1(episodes * math.log(anchor_decay))
  kept = (1 - anchor_decay) * (1 - sparsity)
  return -math.expm1(episodes * math.log1p(-kept))


def _check_rate(name: str, value: Any) -> None:
  if not 0 < _number(value) < math.inf:
    raise ValueError(
      f"{name} must be positive and finite, or an Optax schedule step -> rate,"
      f" got {value!r}."
    )


def _check_range(
  name: str, value: Any, low: float, high: float, allowed: str
) -> None:
  """Raises ValueError unless ``low <= value < high``."""
  if not low <= _number(value) < high:
    raise ValueError(f"{name} must be {allowed}, got {value!r}.")


def _number(value: Any) -> float:
  """A number, also of NumPy's or JAX's, as a float; NaN for anything else."""
  if isinstance(value, bool | str | jax.core.Tracer) or np.ndim(value):
    return math.nan
  try:
    return float(value)
  except TypeError:
    return math.nan
