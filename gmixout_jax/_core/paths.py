"""Paths of leaves: what masks, labels and messages know a leaf by."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import meta

_BOXES = (nnx.Variable, meta.AxisMetadata)


def named_leaves(
  tree: Any, is_leaf: Callable[[Any], bool] = lambda node: False
) -> list[tuple[str, Any]]:
  """Leaves of a pytree with their '/'-joined paths, in `jax.tree` order.

  A box is no part of a path: an NNX variable or one of Linen's boxes
  (`flax.linen.Partitioned` and its kind) is named as what holds it, so that a
  leaf is the same whether the tree holds the box or its bare array.
  `nnx.Optimizer` hands variables to `init` and arrays to `update`, and both
  must mean the same leaf.

  Args:
    tree: Any pytree: nested dicts and lists, Equinox modules, NNX states, ...
    is_leaf: As for `jax.tree.leaves`.

  Returns:
    Pairs of path and leaf.

  >>> named_leaves({"block": [{"kernel": 3.0}, {"kernel": 4.0}]})
  [('block/0/kernel', 3.0), ('block/1/kernel', 4.0)]
  >>> named_leaves({"kernel": nnx.Param(3.0)})
  [('kernel', 3.0)]
  """
  return [
    (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
    for path, leaf in _unboxed(tree, is_leaf, ())
  ]


def _unboxed(
  tree: Any, is_leaf: Callable[[Any], bool], before: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
  """Leaves with their keys, of which those into boxes are left out."""
  nodes, _ = jax.tree_util.tree_flatten_with_path(
    tree, is_leaf=lambda node: is_leaf(node) or isinstance(node, _BOXES)
  )
  for path, node in nodes:
    path = (*before, *path)
    if is_leaf(node) or not isinstance(node, _BOXES):
      yield path, node
      continue
    contents, _ = jax.tree_util.tree_flatten_with_path(
      node, is_leaf=lambda child, box=node: child is not box
    )
    for _, content in contents:
      yield from _unboxed(content, is_leaf, path)


def check_paths(named: Sequence[tuple[str, Any]]) -> None:
  """Raises ValueError if two leaves have one path."""
  seen = set()
  for path, _ in named:
    if path in seen:
      raise ValueError(
        f"params have two leaves with the path {path!r}, as a key that holds a"
        " '/' reads like two keys: rename one."
      )
    seen.add(path)


def is_matrix(leaf: Any) -> bool:
  """Whether a leaf can be mixed: floating point, two axes or more, entries."""
  return (
    hasattr(leaf, "ndim")
    and leaf.ndim >= 2
    and 0 not in leaf.shape
    and jnp.issubdtype(leaf.dtype, jnp.floating)
  )


def quote_leaves(named: Sequence[tuple[str, Any]]) -> str:
  """Paths for a message, the matrices first: they are what it is about."""
  return quote(
    [path for path, leaf in named if is_matrix(leaf)]
    + [path for path, leaf in named if not is_matrix(leaf)]
  )


def quote(names: Sequence[str], most: int = 20) -> str:
  """Names for a message, cut where a list would bury it.

  >>> quote(["a", "b", "c"], most=2)
  "'a', 'b' and 1 more"
  """
  shown = ", ".join(repr(name) for name in names[:most])
  hidden = len(names) - most
  return shown + (f" and {hidden} more" if hidden > 0 else "")
