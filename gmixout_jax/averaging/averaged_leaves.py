"""Which leaves of weights have a mean; the others must agree.

The mean of two step counts, of two masks or of two PRNG keys means nothing,
and rounded to an integer the point between 3 and 3 may be 2. So such leaves
stay as they are; where the weights to be averaged disagree on one, it is an
error.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from gmixout_jax.labels import named_leaves


def has_mean(leaf: Any) -> bool:
  """Whether a leaf is averaged: floating-point and complex numbers are.

  Integers, booleans and PRNG keys are not.

  >>> has_mean(jnp.zeros(2, jnp.bfloat16)), has_mean(1j), has_mean(np.int8(3))
  (True, True, False)
  """
  if isinstance(leaf, float | complex):
    return True
  return jnp.issubdtype(getattr(leaf, "dtype", object), jnp.inexact)


def wide_dtype(*values: Any) -> np.dtype:
  """The type to sum numbers in: at least float32, and complex if one is.

  Not `jnp.promote_types`, which refuses bfloat16 beside float32 where
  promotion is strict, and float8 everywhere.

  >>> wide_dtype(jnp.zeros(2, jnp.bfloat16), jnp.zeros(2, jnp.complex64))
  dtype('complex64')
  """
  dtypes = [np.dtype(v.dtype) for v in values if hasattr(v, "dtype")]
  double = any(dtype in (np.float64, np.complex128) for dtype in dtypes)
  wide = np.result_type(
    np.float64 if double else np.float32,
    np.complex64 if any(map(_is_complex, values)) else np.float32,
  )
  return jax.dtypes.canonicalize_dtype(wide)


def average_leaves(
  average: Callable[..., jax.Array],
  trees: Sequence[Any],
  *arguments: Sequence[Any],
  names: Sequence[str] | None = None,
) -> Any:
  """Averages the leaves that have a mean, and keeps those that agree.

  Args:
    average: From one leaf of every tree, as arrays of one shape, and that
      leaf's arguments to an array.
    trees: Weights of one structure, at least one.
    *arguments: Sequences of as many values as there are leaves.
    names: What to call the trees in messages; ``trees[i]`` by default.

  Returns:
    A pytree like the first. A leaf without a mean is the first one's own.

  Raises:
    ValueError: If the structures differ; if a leaf's shapes differ, or it is
      real here and complex there; or if one without a mean differs, or may
      differ, as it is traced. The leaf is named.
  """
  names = names or [f"trees[{i}]" for i in range(len(trees))]
  structure = jax.tree.structure(trees[0])
  columns = structure.flatten_up_to(
    jax.tree.map(lambda *leaves: leaves, *trees)
  )
  results = []
  for (path, first), leaves, *own in zip(
    named_leaves(trees[0]), columns, *arguments, strict=True
  ):
    if all(map(has_mean, leaves)):
      arrays = [jnp.asarray(leaf) for leaf in leaves]
      _check_alike(path, arrays, names)
      results.append(average(*arrays, *own))
    else:
      for leaf, name in zip(leaves[1:], names[1:], strict=True):
        check_agreement(path, (first, leaf), (names[0], name))
      results.append(first)
  return jax.tree.unflatten(structure, results)


def check_trees(trees: Sequence[Any], names: Sequence[str] | None = None):
  """Raises what `average_leaves` would raise, before anything costs time."""
  average_leaves(lambda first, *others: first, trees, names=names)


def check_agreement(
  path: str, leaves: tuple[Any, Any], names: tuple[str, str]
) -> None:
  """Raises ValueError unless a leaf without a mean is the same in two trees.

  Args:
    path: The leaf's.
    leaves: It, in both.
    names: What to call them.
  """
  first, other = leaves
  if first is other:
    return
  ours, theirs = names
  if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
    raise ValueError(
      f"leaf {path!r} of {ours} and {theirs} has no mean ({_kind(first)}), and"
      " under jit its values cannot be compared: average outside of jit, or"
      " leave it out."
    )
  if not _equal(first, other):
    raise ValueError(
      f"leaf {path!r} has no mean ({_kind(first)}) and must be the same in all"
      f" that is averaged, got {_quote(first)} in {ours} and {_quote(other)} in"
      f" {theirs}."
    )


def _check_alike(
  path: str, arrays: Sequence[jax.Array], names: Sequence[str]
) -> None:
  first = arrays[0]
  for array, name in zip(arrays, names, strict=True):
    if array.shape != first.shape:
      raise ValueError(
        f"leaf {path!r} has shape {first.shape} in {names[0]}, but"
        f" {array.shape} in {name}."
      )
    if _is_complex(array) != _is_complex(first):
      raise ValueError(
        f"leaf {path!r} is {first.dtype} in {names[0]}, but {array.dtype} in"
        f" {name}: all must be real, or all complex."
      )


def _is_complex(value: Any) -> bool:
  return jnp.issubdtype(
    getattr(value, "dtype", type(value)), jnp.complexfloating
  )


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(getattr(leaf, "dtype", object), jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
  return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _equal(first: Any, other: Any) -> bool:
  keys = _is_key(first) or _is_key(other)
  if keys and _kind(first) != _kind(other):
    return False
  return np.array_equal(_plain(first), _plain(other))


def _kind(leaf: Any) -> str:
  return str(getattr(leaf, "dtype", type(leaf).__name__))


def _quote(leaf: Any) -> str:
  """The value on one line, the middle of a long one left out."""
  text = np.array2string(_plain(leaf), threshold=8, edgeitems=2, separator=", ")
  return " ".join(text.split())
