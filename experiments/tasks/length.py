"""How long a run is: in steps, or in passes over the training images."""

import math

DEFAULT_STEPS = 300


def check(steps: int | None, epochs: float | None) -> None:
  """Whether they make sense together.

  Raises:
    ValueError: If there are both, or the one that there is is too small.
  """
  if steps is not None and epochs is not None:
    raise ValueError(
      "a run is as long as its steps or its epochs say: give one of them, got"
      f" steps={steps} and epochs={epochs}."
    )
  if steps is not None and steps < 1:
    raise ValueError(f"steps must be at least 1, got {steps}.")
  if epochs is not None and not 0 < epochs < math.inf:
    raise ValueError(f"epochs must be finite and above 0, got {epochs}.")


def steps(
  steps: int | None, epochs: float | None, *, images: int, batch: int
) -> int:
  """The steps of a run; the last batch of the last epoch is filled up.

  Args:
    steps: If they are given.
    epochs: If they are given instead.
    images: In the training set.
    batch: Images per step.

  Raises:
    ValueError: As `check`.

  Example:
    >>> steps(None, 2, images=100, batch=32)
    7
    >>> steps(None, None, images=100, batch=32)
    300
  """
  check(steps, epochs)
  if epochs is not None:
    return math.ceil(epochs * images / batch)
  return DEFAULT_STEPS if steps is None else steps
