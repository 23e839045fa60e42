"""From a head's outputs to the classes of a set, before any arg-max."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def select(
  logits: Float[np.ndarray, "n outputs"],
  outputs: Sequence[Sequence[int]] | None,
  *,
  classes: int | None = None,
) -> Float[np.ndarray, "n classes"]:
  """The logits of a set's own classes.

  Taking the arg-max over all 1,000 outputs first and calling whatever lies
  outside ImageNet-A's 200 classes wrong is another, lower number.

  Args:
    logits: Of the whole head.
    outputs: Per class the outputs that mean it; the highest of several speaks
      for the class, as ObjectNet's authors have it. None if output c is class
      c. `experiments.data.images.ImageSet` carries it.
    classes: How many classes the set has, to be compared.

  Returns:
    One column per class.

  Raises:
    ValueError: If the head lacks an output, or without ``outputs`` has another
      number of outputs than the set has classes.

  Example:
    >>> import numpy as np
    >>> select(np.array([[5.0, 1.0, 2.0, 9.0]]), [[0], [1, 2]])
    array([[5., 2.]])
  """
  logits = np.asarray(logits)
  if outputs is None:
    if classes is not None and logits.shape[1] != classes:
      raise ValueError(
        f"the head has {logits.shape[1]} outputs and the data {classes}"
        " classes: expected as many, or a list of which outputs they are."
      )
    return logits
  if classes is not None and len(outputs) != classes:
    raise ValueError(f"outputs lists {len(outputs)} of {classes} classes.")
  for label, group in enumerate(outputs):
    if not len(group):
      raise ValueError(f"class {label} has no output.")
    for output in group:
      if not 0 <= output < logits.shape[1]:
        raise ValueError(
          f"class {label} is output {output}, but the head has outputs 0 to"
          f" {logits.shape[1] - 1}."
        )
  return np.stack(
    [logits[:, list(group)].max(axis=1) for group in outputs], axis=1
  )
