"""What the processes of a run do together."""

import jax
import numpy as np
from jax.experimental import multihost_utils


def agreed[T: (bool, int)](value: T) -> T:
  """What the first process says, on all of them."""
  if jax.process_count() == 1:
    return value
  said = multihost_utils.broadcast_one_to_all(np.asarray(value))
  return type(value)(said)


def together(what: str) -> None:
  """Waits for all processes."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)
