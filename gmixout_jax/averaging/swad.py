"""SWAD's window: which part of a run to average, from its validation losses."""

import numbers
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Window(NamedTuple):
  """Evaluations `start` to `end`, both included, counted from 0."""

  start: int
  end: int


def swad_window(
  losses: Sequence[float] | Float[np.ndarray, " n"],
  *,
  converge: int = 3,
  tolerance: int = 6,
  ratio: float = 1.3,
) -> Window:
  """Finds the flat stretch between convergence and overfitting.

  The window starts at t_s, the first evaluation whose loss is not above any of
  the next N_s − 1. The highest loss tolerated is l = r · (mean loss of these
  N_s). The window ends at t_e if all N_e evaluations after t_e exceed l, or
  else with the run. Without such a t_s it is the whole run.

  Args:
    losses: On the validation split, evenly spaced over the run; no NaN.
    converge: N_s, at least 1.
    tolerance: N_e, at least 1.
    ratio: r, at least 1. The paper has 1.3, and 1.2 for VLCS.

  Returns:
    The window, t_s and t_e.

  Raises:
    ValueError: If there are no losses, one is NaN, or an argument is out of
      range.

  Example:
    >>> from gmixout_jax import averaging
    >>> losses = [9.0, 4.0, 1.0, 1.1, 1.2, 1.1, 3.0, 4.0, 5.0]
    >>> averaging.swad_window(losses, tolerance=2)
    Window(start=2, end=5)

  Note:
    The text of the paper bounds the loss by r times the one at t_s; its
    algorithm and the authors' code by r times the mean, as here. Their code
    (`LossValley`) differs from the algorithm, and from this, in four ways:
    segments just before t_s that lie below l are averaged too; t_s counts
    twice where N_e > N_s, and not at all where N_e = N_s; a run without t_s
    gives its last segment alone; and the evaluations above l at the very end
    of a run are dropped, where here a run that ends before N_e of them is
    averaged to its end.

  References:
    Cha et al., SWAD: Domain generalization by seeking flat minima, 2021,
    https://arxiv.org/abs/2102.08604
  """
  array = np.asarray(losses, float)
  if array.ndim != 1 or not array.size or np.isnan(array).any():
    raise ValueError(
      f"losses must be a list of numbers, at least one and none NaN, got"
      f" {losses}."
    )
  for name, value in (("converge", converge), ("tolerance", tolerance)):
    if not isinstance(value, numbers.Integral) or value < 1:
      raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")
  if ratio < 1:
    raise ValueError(f"ratio must be at least 1, got {ratio}.")
  losses = array.tolist()
  start, last = None, len(losses) - 1
  for first in range(len(losses) - converge + 1):
    following = losses[first : first + converge]
    if losses[first] == min(following):
      start, limit = first, ratio * float(np.mean(following))
      break
  else:
    return Window(0, last)
  # The evaluations that fixed the limit are not held against it.
  first = start + max(0, converge - tolerance)
  for end in range(first, len(losses) - tolerance):
    if min(losses[end + 1 : end + 1 + tolerance]) > limit:
      return Window(start, end)
  return Window(start, last)
