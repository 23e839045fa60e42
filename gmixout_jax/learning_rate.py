"""Which learning rate, coming from a recipe of full fine-tuning."""

import math
import warnings

_FACTOR, _STEPS = 5.0, 10
"""Times the recipe's rate, at so many steps an episode."""

_BELOW, _ABOVE = 1, 1 / 3
"""How the rate falls with the steps of an episode, below `_STEPS` and above."""

_FAR_ABOVE, _FAR_BELOW = 3.0, 10.0


def gmixout_learning_rate(recipe: float, *, resample_every: int = 10) -> float:
  r"""The peak learning rate to start from, under Adam or one of its kind.

  .. math:: \eta = 5 \, \eta_{\text{full}} \, (10 / k)^a, \qquad
    a = 1 \text{ for } k < 10, \; 1/3 \text{ above}

  A rule of thumb, measured and not derived. On a ViT-Ti/16 the best rate in
  distribution was 5 times the best one of full fine-tuning at k = 10, and 50
  times it or more at k = 1. On a small CLIP it was 9 and 100 times or more if
  full fine-tuning's is read off the same images by the same score (1e-3), but 3
  and 33 if it is the one that other images chose (3e-3). At k = 50 it was
  smaller than at k = 10 by 15 to 45 %. Sparsity from 0.5 to 0.97, λ from 0 to
  0.8 and the sampler moved it by less than its own uncertainty. Take a third
  of it with ``moments="reset"``, or where robustness counts for more than
  accuracy at home. The measurements are in experiments/README.md.

  It is much less than what λ and 1 − p would make up for: the anchor moves by
  (1 − λ)(1 − p) of what the live weights do, but these have to stay where the
  loss makes sense, so a larger rate fails before the anchor catches up. What
  helps a run that is too short is a smaller k.

  Args:
    recipe: η_full, the peak rate of full fine-tuning on the task, above 0.
    resample_every: k, the optimizer steps of an episode, at least 1.

  Returns:
    η for the residual's optimizer.

  Raises:
    ValueError: If an argument is out of range.

  Example:
    >>> import gmixout_jax as gx
    >>> f"{gx.gmixout_learning_rate(1e-5, resample_every=10):.0e}"
    '5e-05'
  """
  for name, value in (("recipe", recipe), ("resample_every", resample_every)):
    if not (value > 0 and math.isfinite(value)):
      raise ValueError(f"{name} must be positive and finite, got {value}.")
  if resample_every < 1:
    raise ValueError(
      f"resample_every must be at least 1, got {resample_every}."
    )
  exponent = _BELOW if resample_every < _STEPS else _ABOVE
  return _FACTOR * recipe * (_STEPS / resample_every) ** exponent


def check_gmixout_learning_rate(
  learning_rate: float, *, recipe: float, resample_every: int = 10
) -> None:
  """Warns where a rate is far from `gmixout_learning_rate`.

  Three times above it training lost accuracy on other domains or broke down
  where it was tried; ten times below, the anchor hardly moved.

  Args:
    learning_rate: The peak, above 0.
    recipe: As of `gmixout_learning_rate`.
    resample_every: Likewise.

  Warns:
    UserWarning: It names both rates and what to expect.

  Raises:
    ValueError: If an argument is out of range.

  Example:
    >>> import gmixout_jax as gx
    >>> gx.check_gmixout_learning_rate(1e-4, recipe=1e-5, resample_every=10)
  """
  if not (learning_rate > 0 and math.isfinite(learning_rate)):
    raise ValueError(
      f"learning_rate must be positive and finite, got {learning_rate}."
    )
  rule = gmixout_learning_rate(recipe, resample_every=resample_every)
  if learning_rate > _FAR_ABOVE * rule:
    consequence = "live weights may run away within an episode"
  elif learning_rate < rule / _FAR_BELOW:
    consequence = "the anchor will hardly move"
  else:
    return
  warnings.warn(
    f"GMixout's learning rate is {learning_rate:g}, but a recipe of"
    f" {recipe:g} and {resample_every} steps an episode suggest {rule:.1g}:"
    f" {consequence}.",
    stacklevel=2,
  )
