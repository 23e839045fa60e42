"""Points between weights: WiSE-FT's line and the mean of a soup.

Floating-point and complex leaves are averaged, in at least float32 and back to
their own type. Integers, booleans and PRNG keys stay as they are; if the inputs
disagree on one, that is an error (see `averaged_leaves`).
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gmixout_jax.averaging.averaged_leaves import average_leaves, wide_dtype
from gmixout_jax.labels import named_leaves


def interpolate(start: Any, end: Any, alpha: ArrayLike) -> Any:
  """The point (1 − α) · start + α · end: WiSE-FT.

  It is formed in at least float32, whatever the weights are stored in. Leaves
  of integers, booleans or PRNG keys have no point between them: they stay.

  Args:
    start: The pretrained weights θ0, any pytree of arrays, with the head: for a
      CLIP the zero-shot head.
    end: The fine-tuned weights θ1, of the same structure.
    alpha: α in [0, 1]: 0 returns `start`, 1 returns `end`, both exactly. 0.5 is
      the authors' choice without out-of-distribution data.

  Returns:
    A pytree like `start`.

  Raises:
    ValueError: If `alpha` is no scalar or known to be outside [0, 1], the
      structures or the shapes of a leaf differ, or a leaf of integers, booleans
      or keys does (or may, being traced); the leaf is named, with both values.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax import averaging
    >>> start, end = {"w": jnp.array([0.0, 2.0])}, {"w": jnp.array([4.0, 2.0])}
    >>> averaging.interpolate(start, end, 0.25)
    {'w': Array([1., 2.], dtype=float32)}

  Note:
    High-Rate Mixout's code has an option of nearly this name that weights the
    *pretrained* side, and leaves the head out.

  References:
    Wortsman et al., Robust fine-tuning of zero-shot models, 2021,
    https://arxiv.org/abs/2109.01903
  """
  if alpha is None or jnp.shape(alpha) != ():
    raise ValueError(f"alpha must be one number in [0, 1], got {alpha!r}.")
  known = not isinstance(alpha, jax.core.Tracer)
  if known and not 0 <= float(alpha) <= 1:  # pyright: ignore[reportArgumentType]
    raise ValueError(f"alpha must be in [0, 1], got {alpha}.")
  if not isinstance(alpha, jax.Array):
    alpha = float(alpha)  # pyright: ignore[reportArgumentType]

  def point(a: jax.Array, b: jax.Array) -> jax.Array:
    dtype = wide_dtype(a, b, alpha)
    share = alpha.astype(dtype) if isinstance(alpha, jax.Array) else alpha
    # Not a + α(b − a): in floating point that misses b at α = 1.
    between = jnp.asarray(1 - share, dtype) * a.astype(dtype) + jnp.asarray(
      share, dtype
    ) * b.astype(dtype)
    # Zero times infinity is NaN, and a buffer may hold infinities.
    found = jnp.where(share == 0, a, between.astype(a.dtype))
    return jnp.where(share == 1, b.astype(a.dtype), found)

  return average_leaves(point, [start, end], names=["start", "end"])


def mean(trees: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
  """The mean of several weights, Σ wᵢ θᵢ / Σ wᵢ: the uniform soup.

  Sums are in at least float32, whatever the weights are stored in. Leaves of
  integers, booleans or PRNG keys have no mean: they stay.

  Args:
    trees: θᵢ, pytrees of one structure; at least one.
    weights: wᵢ, one per tree, finite and with a positive sum; None for all
      alike.

  Returns:
    A pytree like the first.

  Raises:
    ValueError: If there are no trees, the number or the sum of `weights` is not
      allowed, the structures or the shapes of a leaf differ, or a leaf of
      integers, booleans or keys does (or may, being traced); the leaf is
      named, with both values.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax import averaging
    >>> trees = [{"w": jnp.array(1.0)}, {"w": jnp.array(4.0)}]
    >>> averaging.mean(trees), averaging.mean(trees, weights=[2, 1])
    ({'w': Array(2.5, dtype=float32)}, {'w': Array(2., dtype=float32)})

  References:
    Wortsman et al., Model soups, 2022, https://arxiv.org/abs/2203.05482;
    Ramé et al., DiWA, 2022, https://arxiv.org/abs/2205.09739
  """
  if not trees:
    raise ValueError("a mean needs at least one tree, got none.")
  shares = [1.0] * len(trees) if weights is None else list(weights)
  total = sum(shares)
  if len(shares) != len(trees) or not 0 < total < math.inf:
    raise ValueError(
      f"weights must be {len(trees)} finite numbers with a positive sum, one"
      f" per tree, got {weights}."
    )
  return mix_leaves(trees, [share / total for share in shares])


def mix_leaves(trees: Sequence[Any], weights: Any) -> Any:
  """Σ wᵢ θᵢ with weights of its own for every leaf.

  A weight of 0 leaves θᵢ out, even where it is infinite.

  Args:
    trees: θᵢ, pytrees of one structure; at least one.
    weights: A vector with one entry per tree, or a pytree like each of them
      with such a vector in place of every leaf. A vector is an array of one
      axis or a sequence of numbers. Not normalised. May be traced. Those of a
      leaf of integers, booleans or PRNG keys count for nothing: it stays.

  Returns:
    A pytree like the first.

  Raises:
    ValueError: If there are no trees, a vector does not have one number per
      tree (a leaf's is named), the structures or the shapes of a leaf differ,
      or a leaf of integers, booleans or keys does (or may, being traced); the
      leaf is named, with both values.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax import averaging
    >>> trees = [{"a": jnp.array(1.0), "b": jnp.array(1.0)}, {
    ...   "a": jnp.array(3.0), "b": jnp.array(3.0)}]
    >>> weights = {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.5, 0.5])}
    >>> averaging.mix_leaves(trees, weights)
    {'a': Array(1., dtype=float32), 'b': Array(2., dtype=float32)}
  """
  if not trees:
    raise ValueError("a mixture needs at least one tree, got none.")
  names = [name for name, _ in named_leaves(trees[0])]
  structure = jax.tree.structure(trees[0])
  if _is_vector(weights):
    own = [_vector(weights, len(trees), "weights")] * len(names)
  else:
    own = [
      _vector(vector, len(trees), f"the weights of leaf {name!r}")
      for name, vector in zip(
        names, structure.flatten_up_to(weights), strict=True
      )
    ]

  def mix(*leaves_and_own: jax.Array) -> jax.Array:
    *leaves, own = leaves_and_own
    dtype = wide_dtype(*leaves, own)
    own = own.astype(dtype)
    terms = [  # zero times infinity would be NaN
      jnp.where(own[i] == 0, jnp.zeros((), dtype), own[i] * leaf.astype(dtype))
      for i, leaf in enumerate(leaves)
    ]
    return functools.reduce(operator.add, terms).astype(leaves[0].dtype)

  return average_leaves(mix, trees, own)


def _is_vector(weights: Any) -> bool:
  """Whether weights are for all leaves, and no tree of vectors."""
  kinds = jax.Array | np.ndarray | np.generic | float | int
  if isinstance(weights, list | tuple):
    return all(isinstance(w, kinds) and jnp.ndim(w) == 0 for w in weights)
  return isinstance(weights, kinds)


def _vector(weights: Any, count: int, what: str) -> jax.Array:
  """Weights as an array of `count` numbers."""
  try:
    vector = jnp.asarray(weights)
  except (TypeError, ValueError):
    vector = None
  if vector is None or vector.shape != (count,):
    raise ValueError(
      f"{what} must be {count} numbers, one per tree, got {weights}."
    )
  return vector
