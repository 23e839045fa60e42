"""What a user may give as the key of the masks, as the words that draw them."""

import numbers
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from pallas_kernels import threefry


def raw_key(key: Any) -> np.ndarray | jax.Array:
  """Raw uint32 key data of a typed key, of key data, or of an int seed.

  A state holds raw data because `optax.lookahead(reset_state=True)` and
  `optax.contrib.sam` do arithmetic on states, which typed keys refuse.

  Args:
    key: Typed threefry key, uint32 key data ``[2]``, or an int of 64 bits,
      perhaps in a scalar array. An int is the key that `jax.random.key` makes
      of it; one that needs more than 32 bits, that which it makes in 64-bit
      mode, whatever the mode.

  Returns:
    uint32 ``[2]``; a NumPy array unless traced, so that every state gets a
    buffer of its own and may be donated.

  Raises:
    ValueError: If it is none of these, or of another PRNG implementation.

  >>> raw_key(7)
  array([0, 7], dtype=uint32)
  >>> raw_key(2**40 + 7)
  array([256,   7], dtype=uint32)
  """
  scalar = getattr(key, "shape", None) == () and jnp.issubdtype(
    key.dtype, jnp.integer
  )
  if scalar and isinstance(key, jax.core.Tracer):
    key = jax.random.key(key, impl="threefry2x32")
  elif scalar or (
    isinstance(key, numbers.Integral) and not isinstance(key, bool)
  ):  # optax.inject_hyperparams makes an array of an int
    key = _words(int(key))
  key = threefry.key_data(
    key, "a typed PRNG key, its uint32 data of shape (2,), or an int"
  )
  return key if isinstance(key, jax.core.Tracer) else np.asarray(key)


def _words(key: int) -> np.ndarray:
  """The halves of an int of 64 bits; without the upper one if 32 are enough.

  `jax.random.key` would cut off the upper half but in 64-bit mode.
  """
  if not -(2**63) <= key < 2**63:
    raise ValueError(
      f"key must be an int from -2**63 to 2**63 - 1, got {key!r}; a longer"
      " one can be given as key data, uint32 of shape (2,)."
    )
  short = -(2**31) <= key < 2**32
  upper, lower = divmod(key % 2**64, 2**32)
  return np.array([0 if short else upper, lower], np.uint32)
