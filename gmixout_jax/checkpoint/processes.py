"""What the processes of a run do together."""

import json

import jax
import numpy as np
from jax.experimental import multihost_utils


def leads() -> bool:
  """Whether this is the first process, which alone writes."""
  return jax.process_index() == 0


def agreed[T](value: T) -> T:
  """The first process' value, on all of them.

  Processes see what one of them writes to disk at different times: what follows
  from files is decided by the first one.

  Args:
    value: JSON. Only that of the first process counts.
  """
  if jax.process_count() == 1:
    return value
  encoded = json.dumps(value).encode() if leads() else b""
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(encoded))))
  padded = np.frombuffer(encoded.ljust(size, b" ")[:size], np.uint8)
  return json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)))


def together(what: str) -> None:
  """Waits for all processes."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)
