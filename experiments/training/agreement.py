"""What several processes of a run must decide alike: the first one decides."""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def leads() -> bool:
  """Whether this is the first process, which alone writes."""
  return jax.process_index() == 0


def agreed(value: Any) -> Any:
  """The first process' value, on all of them; JSON.

  Files that one process writes are seen by the others at another time.

  Args:
    value: What the first process says; that of others does not matter.
  """
  if jax.process_count() == 1:
    return value
  said = json.dumps(value).encode() if leads() else b""
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(said))))
  padded = np.frombuffer(said.ljust(size, b" ")[:size], np.uint8)
  return json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)))
