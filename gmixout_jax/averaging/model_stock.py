"""Model Stock: how far from the pretrained weights a mean should lie."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gmixout_jax.averaging.averaged_leaves import (
  check_trees,
  has_mean,
  wide_dtype,
)
from gmixout_jax.averaging.interpolation import mix_leaves
from pallas_kernels.difference import difference


class Stock(NamedTuple):
  """What `model_stock` returns.

  Attributes:
    params: The merged weights.
    ratios: t of every leaf, a pytree like `params` of scalars.
  """

  params: Any
  ratios: Any


def stock_ratio[T: (float, jax.Array)](cosine: T, count: int) -> T:
  """The share of the mean, t = N cos θ / (1 + (N − 1) cos θ).

  Args:
    cosine: cos θ, in [0, 1].
    count: N, at least 2.

  Example:
    >>> from gmixout_jax.averaging.model_stock import stock_ratio
    >>> stock_ratio(0.5, 3), stock_ratio(1.0, 5)
    (0.75, 1.0)
  """
  return count * cosine / (1 + (count - 1) * cosine)


def model_stock(pretrained: Any, tuned: Sequence[Any]) -> Stock:
  """Merges a few runs by their angles, leaf by leaf, and without data.

  Fine-tuned weights lie on a thin shell around a centre. Let θ be the angle
  between two differences θᵢ − θ0. In the plane of N runs and the pretrained
  weights, the point nearest to the centre is

    θ_H = t · mean(θᵢ) + (1 − t) θ0,   t = N cos θ / (1 + (N − 1) cos θ).

  Runs that agree (cos θ = 1) keep their mean; where they have nothing in common
  (cos θ = 0) the pretrained weights come back.

  Args:
    pretrained: θ0, a pytree of arrays; each leaf is a layer of its own.
    tuned: θᵢ, at least two, of the same structure.

  Returns:
    The merged weights and the ratios.

  Raises:
    ValueError: If there are fewer than two runs, or the structures, the shapes
      of a leaf, or leaves of integers, booleans or keys differ; the leaf is
      named.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax import averaging
    >>> tuned = [{"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([1.0, 1.0])}]
    >>> stock = averaging.model_stock({"w": jnp.zeros(2)}, tuned)
    >>> round(float(stock.ratios["w"]), 3)  # cos θ = 1/√2: 2/(1 + √2)
    0.828

  Note:
    The cosine is the mean over all pairs, as in mergekit. It is clipped to
    [0, 1], so that runs of opposite directions fall back to the pretrained
    weights; the paper's formula would extrapolate beyond them. A leaf that no
    run changed has ratio 0, as have integers, booleans and PRNG keys. Complex
    numbers count as their real and imaginary parts. The authors' code was never
    released; merging during training is left out.

  References:
    Jang et al., Model Stock: All we need is just a few fine-tuned models,
    2024, https://arxiv.org/abs/2403.19522
  """
  if len(tuned) < 2:
    raise ValueError(f"Model Stock needs at least two runs, got {len(tuned)}.")
  names = ["pretrained", *(f"tuned[{i}]" for i in range(len(tuned)))]
  check_trees([pretrained, *tuned], names)

  def ratio(start: jax.Array, *ends: jax.Array) -> jax.Array:
    if not has_mean(start):
      return jnp.zeros([])
    wide = wide_dtype(start)
    origin, *others = (jnp.asarray(leaf, wide) for leaf in (start, *ends))
    deltas = [difference(other, origin).ravel() for other in others]
    norms = [jnp.linalg.norm(delta) for delta in deltas]
    cosines = []
    for i, j in itertools.combinations(range(len(deltas)), 2):
      length = norms[i] * norms[j]
      still = length == 0
      dot = jnp.real(jnp.vdot(deltas[i], deltas[j]))
      cosines.append(jnp.where(still, 0.0, dot / jnp.where(still, 1.0, length)))
    cosine = jnp.clip(jnp.mean(jnp.stack(cosines)), 0.0, 1.0)
    return stock_ratio(cosine, len(ends))

  ratios = jax.tree.map(ratio, pretrained, *tuned)
  count = len(tuned)
  shares = jax.tree.map(
    lambda t: jnp.concatenate([(1 - t)[None], jnp.full(count, t / count)]),
    ratios,
  )
  return Stock(mix_leaves([pretrained, *tuned], shares), ratios)
