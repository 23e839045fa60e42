"""Which of several settings to take, by a score on few images."""

import math
from collections.abc import Sequence


def standard_error(accuracy: float, images: int) -> float:
  """Of an accuracy on so many images: √(p (1 − p) / n).

  Args:
    accuracy: p, in [0, 1].
    images: n, at least 1.

  Raises:
    ValueError: If either is out of range.
  """
  if not 0 <= accuracy <= 1:
    raise ValueError(f"accuracy must be in [0, 1], got {accuracy}.")
  if not images >= 1:
    raise ValueError(f"images must be at least 1, got {images}.")
  return math.sqrt(accuracy * (1 - accuracy) / images)


def one_standard_error(accuracies: Sequence[float], images: int) -> int:
  """The first that is within one standard error of the best.

  Settings are in order, the most cautious first: of learning rates the
  smallest. The best on validation images alone tends to a rate past which
  accuracy on other domains falls, as many rates are as good but for chance.

  Args:
    accuracies: Validation accuracies, each in [0, 1]; of several seeds means.
    images: How many validation images a seed has: the error is that of the
      best accuracy on one seed's images, as seeds mostly share them.

  Returns:
    Its index.

  Raises:
    ValueError: If there is none, or one is out of range.

  Example:
    >>> one_standard_error([0.80, 0.89, 0.90, 0.70], images=400)
    1
  """
  if not accuracies:
    raise ValueError("accuracies must be at least one, got none.")
  best = max(accuracies)
  worst_allowed = best - standard_error(best, images)
  for value in accuracies:
    standard_error(value, images)  # which sees its range
  return next(i for i, value in enumerate(accuracies) if value >= worst_allowed)
