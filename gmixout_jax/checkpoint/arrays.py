"""A state as the flat dictionary of arrays that Orbax writes, and back.

Orbax writes no array without entries, and not every low-precision type. The
former are made anew when a state is restored, as shape and type are in the
manifest; the latter are written as wider ones that hold each of their values.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmixout_jax import parallel

WIDER = {
  "uint2": "uint8",
  "uint4": "uint8",
  "float8_e4m3": "float32",
}
"""What Orbax cannot write, and what is written in its place."""


def flatten(state: Any) -> dict[str, Any]:
  """The leaves of a tree by their '/'-joined path, in the tree's order.

  Args:
    state: A pytree of arrays, `jax.ShapeDtypeStruct` or Python's numbers.

  Returns:
    The leaves; a number of Python, or an array of NumPy, as an array of the
    type that JAX gives it.

  Raises:
    ValueError: If two leaves have one path, or a leaf is no array of numbers
      or holds integers that JAX has no type for; it is named.
  """
  leaves = jax.tree.leaves_with_path(state)
  named = {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in leaves
  }
  if len(named) != len(leaves):
    raise ValueError(
      f"the state has {len(leaves)} leaves of only {len(named)} different"
      " paths: rename some."
    )
  return {name: _as_array(name, leaf) for name, leaf in named.items()}


def signature(leaf: Any) -> str:
  """Type and shape of a leaf, such as "float32[8, 40]"."""
  return f"{leaf.dtype}{list(leaf.shape)}"


def as_held(signature: str) -> str:
  """The signature with the type that JAX holds it in.

  Up to version 0.2.0 manifests told those of NumPy's arrays as they were given,
  and what was written had 32 bits.

  Example:
    >>> as_held("int64[3]"), as_held("bfloat16[2, 2]")
    ('int32[3]', 'bfloat16[2, 2]')
  """
  name, bracket, shape = signature.partition("[")
  if name not in ("int64", "uint64", "float64", "complex128"):
    return signature
  return f"{jax.dtypes.canonicalize_dtype(name)}{bracket}{shape}"


def to_write(arrays: Mapping[str, Any]) -> dict[str, jax.Array]:
  """The arrays with entries, on devices and in types that Orbax writes."""
  default = _default_sharding()
  placed = {
    name: leaf
    if isinstance(leaf, jax.Array)
    else jax.make_array_from_process_local_data(default, leaf)
    for name, leaf in arrays.items()
    if leaf.size
  }
  return {
    name: leaf.astype(WIDER[str(leaf.dtype)])
    if str(leaf.dtype) in WIDER
    else leaf
    for name, leaf in placed.items()
  }


def to_read(arrays: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
  """What to load, and to which devices if the arrays say so."""
  return {
    name: jax.ShapeDtypeStruct(
      leaf.shape,
      WIDER.get(str(leaf.dtype), leaf.dtype),
      sharding=_sharding(leaf),
    )
    for name, leaf in arrays.items()
    if leaf.size
  }


def as_wanted(
  loaded: Mapping[str, jax.Array], arrays: Mapping[str, Any]
) -> list[jax.Array]:
  """What was loaded, in the types and with all the leaves that are wanted.

  Args:
    loaded: As `to_read` asked for it.
    arrays: The leaves that are wanted.

  Returns:
    An array for each of them, in their order.

  Raises:
    ValueError: If one was read with half of its bits; it is named.
  """
  return [
    _restored(name, leaf, loaded[name])
    if leaf.size
    else jnp.zeros(leaf.shape, _dtype(leaf), device=_sharding(leaf))
    for name, leaf in arrays.items()
  ]


def _restored(name: str, leaf: Any, found: jax.Array) -> jax.Array:
  if str(leaf.dtype) in WIDER:
    return found.astype(leaf.dtype)
  if found.dtype != (wanted := _dtype(leaf)):
    raise ValueError(
      f"leaf {name!r} of the state must be {wanted}, but was read as"
      f" {found.dtype}: Orbax reads in threads of its own, which do not see"
      " jax.enable_x64 around the call; set jax_enable_x64 for all of them."
    )
  return found


def _as_array(name: str, leaf: Any) -> Any:
  if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
    return leaf
  array = np.asarray(leaf)
  # No array of strings or objects, and no gradient of an integer.
  if array.dtype == jax.dtypes.float0 or not (
    jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool
  ):
    raise ValueError(
      f"leaf {name!r} of the state must be an array of numbers that JAX has a"
      f" type for, got {leaf!r:.80} ({type(leaf).__name__})."
    )
  return _narrowed(
    name, array.astype(array.dtype.newbyteorder("="), copy=False)
  )


def _narrowed(name: str, array: np.ndarray) -> np.ndarray:
  """The array as JAX holds it, with 32 bits unless it has 64 enabled."""
  narrow = array.astype(_dtype(array))
  if array.dtype.kind in "iu" and not np.array_equal(narrow, array):
    beyond = array[narrow != array].flat[0]
    raise ValueError(
      f"leaf {name!r} of the state holds {beyond}, which {narrow.dtype} cannot"
      " hold: enable JAX's 64 bits, or keep it in `iterator`."
    )
  return narrow


def _dtype(leaf: Any) -> Any:
  if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
    return leaf.dtype  # a PRNG key
  return jax.dtypes.canonicalize_dtype(leaf.dtype)


def _sharding(leaf: Any) -> jax.sharding.Sharding:
  return getattr(leaf, "sharding", None) or _default_sharding()


def _default_sharding() -> jax.sharding.Sharding:
  """The first device; of several processes all devices, as Orbax wants it."""
  if jax.process_count() == 1:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.NamedSharding(parallel.data_mesh(), jax.P())
