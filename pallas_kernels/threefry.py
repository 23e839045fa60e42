"""Random words as `jax.random.bits` makes them, from arithmetic alone.

Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror & Shaw, *Parallel Random
Numbers: As Easy as 1, 2, 3*, 2011), applied to each entry's flat position. It
is written out for two reasons: a GPU kernel has no random primitives, and XLA
fuses these forty-odd operations into one loop, where the library's version
passes over memory five times (on CPU, a third of the time).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_PARITY = np.uint32(0x1BD11BDA)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry_2x32(
  key: tuple[jax.Array, jax.Array], counts: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """Encrypts two words of counter with two words of key.

  Args:
    key: Two uint32 scalars.
    counts: Two uint32 arrays of one shape.

  Returns:
    Two uint32 arrays of that shape.
  """
  schedule = (*key, key[0] ^ key[1] ^ _PARITY)
  first, second = counts[0] + schedule[0], counts[1] + schedule[1]
  for block in range(5):
    for rotation in _ROTATIONS[block % 2]:
      first = first + second
      second = (second << rotation) | (second >> (32 - rotation))
      second = first ^ second
    first = first + schedule[(block + 1) % 3]
    second = second + schedule[(block + 2) % 3] + np.uint32(block + 1)
  return first, second


def key_data(
  key: Any,
  allowed: str = "a typed PRNG key or its uint32 data of shape (2,)",
) -> Any:
  """The raw data of a threefry key.

  Args:
    key: Typed threefry key, or raw uint32 key data ``[2]``.
    allowed: What the caller takes, for the message of an error.

  Returns:
    uint32 ``[2]``, as it came if it was raw.

  Raises:
    ValueError: If `key` is neither, or of another PRNG implementation.
  """
  dtype = getattr(key, "dtype", None)
  if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
    implementation = str(jax.random.key_impl(key))
    if implementation != "threefry2x32":
      raise ValueError(
        "key must be a threefry2x32 key, whose streams are the same on every"
        f" device and under vmap, got one of {implementation!r}."
      )
    key = jax.random.key_data(key)
  if getattr(key, "shape", None) != (2,) or key.dtype != jnp.uint32:
    raise ValueError(f"key must be {allowed}, got {key!r}.")
  return key


def flat_position(shape: tuple[int, ...], out_sharding: Any = None):
  """Row-major position of each entry, uint32 ``[*shape]``."""
  iota = functools.partial(
    jax.lax.broadcasted_iota, jnp.uint32, shape, out_sharding=out_sharding
  )
  position = iota(dimension=len(shape) - 1)
  stride = 1
  for axis in reversed(range(len(shape) - 1)):
    stride *= shape[axis + 1]
    position = position + iota(dimension=axis) * np.uint32(stride)
  return position


@functools.partial(jax.jit, static_argnums=(1, 2))
def random_words(
  key: jax.Array, shape: tuple[int, ...], out_sharding: Any = None
) -> jax.Array:
  """One uniform random word per entry.

  Args:
    key: Raw uint32 key data ``[2]``, or a typed threefry key.
    shape: At least one axis and fewer than 2³² entries.
    out_sharding: Sharding of the result on an Explicit mesh.

  Returns:
    uint32 ``[*shape]``, equal to ``jax.random.bits(key, shape, "uint32")``
    under the default ``jax_threefry_partitionable``. No device computes words
    that another one holds.

  >>> random_words(jax.random.key(0), (2,)) == jax.random.bits(
  ...   jax.random.key(0), (2,), jnp.uint32
  ... )
  Array([ True,  True], dtype=bool)
  """
  if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.key_data(key)
  return words_at(key, flat_position(shape, out_sharding))


def words_at(key: Any, position: jax.Array) -> jax.Array:
  """The word that `random_words` has at each flat position, uint32.

  Args:
    key: Anything whose items 0 and 1 are the key's words, such as a kernel's
      reference.
    position: Flat positions, uint32.
  """
  high, low = threefry_2x32(
    (key[0], key[1]), (jnp.zeros_like(position), position)
  )
  return high ^ low
