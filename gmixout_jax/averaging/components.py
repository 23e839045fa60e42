"""Weights cut into components by their names, and mixed component by component.

A component is what manifold mixing gives one interpolation factor.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gmixout_jax.averaging.averaged_leaves import (
  average_leaves,
  check_agreement,
  has_mean,
)
from gmixout_jax.averaging.interpolation import interpolate
from gmixout_jax.labels import named_leaves

Components = dict[str, tuple[str, ...]]


def components(trees: Sequence[Any], depth: int) -> Components:
  """Groups the leaves that differ by the first parts of their names.

  Leaves that are equal in all trees are left out: a factor for frozen leaves,
  or for a tower that the classifier does not run, would change nothing. Leaves
  of integers, booleans or PRNG keys must agree, and are left out too.

  Args:
    trees: Weights of one structure, at least one.
    depth: How many parts of a name, as separated by "/", name a component;
      at least 1. A shorter name is a component of its own.

  Returns:
    Component -> the leaves' names, in the order of the leaves.

  Raises:
    ValueError: If `depth` is below 1, there are no trees, or their structures
      or leaves of integers, booleans or keys differ; the first leaf that does
      is named.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax import averaging
    >>> def weights(x):
    ...   fc = {"kernel": jnp.array(x), "bias": jnp.array(x)}
    ...   return {"tower": {"0": fc, "1": fc}, "scale": jnp.array(1.0)}
    >>> trees = [weights(0.0), weights(1.0)]
    >>> averaging.components(trees, depth=2)["tower/1"]
    ('tower/1/bias', 'tower/1/kernel')
    >>> list(averaging.components(trees, depth=1))  # no two scales differ
    ['tower']

  Note:
    The authors group all tensors of a CLIP; of their eight components at
    depth 1, five belong to the text tower and cannot change the accuracy.
  """
  if depth < 1:
    raise ValueError(f"depth must be at least 1, got {depth}.")
  if not trees:
    raise ValueError("components need at least one tree, got none.")
  first, *others = [named_leaves(tree) for tree in trees]
  for number, other in enumerate(others, start=1):
    _check_alike(first, other, f"trees[{number}]")
  groups: dict[str, list[str]] = {}
  for i, (name, leaf) in enumerate(first):
    if not has_mean(leaf):
      for number, other in enumerate(others, start=1):
        pair = (leaf, other[i][1])
        check_agreement(name, pair, ("trees[0]", f"trees[{number}]"))
    elif any(not np.array_equal(leaf, other[i][1]) for other in others):
      prefix = "/".join(name.split("/")[:depth])
      groups.setdefault(prefix, []).append(name)
  return {prefix: tuple(names) for prefix, names in groups.items()}


def mix_components(
  first: Any,
  second: Any,
  groups: Components,
  factors: Mapping[str, float],
) -> Any:
  """λ_c · first + (1 − λ_c) · second in every component c.

  Args:
    first: Weights.
    second: Weights of the same structure.
    groups: From `components`; leaves in none of them are taken from `first`.
    factors: λ_c, in [0, 1].

  Returns:
    A pytree like `first`.

  Raises:
    KeyError: If a component has no factor.
    ValueError: If a factor is a number outside [0, 1], or the structures or
      leaves of integers, booleans or keys differ; the leaf is named.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax import averaging
    >>> a = {"w": jnp.array(0.0), "b": jnp.array(0.0)}
    >>> b = {"w": jnp.array(1.0), "b": jnp.array(1.0)}
    >>> groups = averaging.components([a, b], depth=1)
    >>> averaging.mix_components(a, b, groups, {"w": 0.25, "b": 1.0})
    {'b': Array(0., dtype=float32), 'w': Array(0.75, dtype=float32)}
  """
  factor = {}
  for component, names in groups.items():
    share = factors[component]
    if not isinstance(share, jax.Array) and not 0 <= share <= 1:
      raise ValueError(
        f"factors[{component!r}] must be in [0, 1], got {share}."
      )
    factor |= dict.fromkeys(names, share)
  ours, theirs = named_leaves(first), named_leaves(second)
  _check_alike(ours, theirs, "second")

  def mix(leaf: jax.Array, other: jax.Array, name: str) -> jax.Array:
    return interpolate(other, leaf, factor[name]) if name in factor else leaf

  names = [name for name, _ in ours]
  return average_leaves(mix, [first, second], names, names=["first", "second"])


def _check_alike(
  first: list[tuple[str, Any]], other: list[tuple[str, Any]], what: str
) -> None:
  """Raises ValueError unless two trees have leaves of the same names."""
  names = ([name for name, _ in named] for named in (first, other))
  for pair in itertools.zip_longest(*names):
    if pair[0] != pair[1]:
      ours, theirs = ("none" if name is None else repr(name) for name in pair)
      raise ValueError(
        f"all trees must have one structure, but where the first one has the"
        f" leaf {ours}, {what} has {theirs}."
      )
