"""The manifold mixing model soup: a factor per component, found by search."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gmixout_jax.averaging.components import (
  Components,
  components,
  mix_components,
)
from gmixout_jax.averaging.ranking import ranked

Vector = Float[np.ndarray, " n"]

Minimise = Callable[
  [Callable[[Vector], float], Vector, Vector, Vector, int], Vector
]
"""From (loss, start, low, high, evaluations) to the best point found."""


class ManifoldSoup(NamedTuple):
  """What `manifold_soup` returns.

  Attributes:
    params: The mixed weights.
    ingredients: Indices of the runs in it, in the order they went in.
    shares: Component -> the share of each ingredient; they sum to one.
    score: Of `params`.
    skipped: Runs that the short-circuit skipped, without a search.
    rejected: Runs for which the search found no improvement.
  """

  params: Any
  ingredients: tuple[int, ...]
  shares: dict[str, list[float]]
  score: float
  skipped: tuple[int, ...]
  rejected: tuple[int, ...]


def manifold_soup(
  trees: Sequence[Any],
  validate: Callable[[Any], float],
  minimise: Minimise,
  *,
  depth: int = 2,
  threshold: float = 0.998,
  budget: int = 30,
  scores: Sequence[float] | None = None,
) -> ManifoldSoup:
  """Mixes runs one by one, each component with a factor of its own.

  The runs are tried from the best one down. With A the soup so far, K the
  number of runs in it, C the candidate and n components:

  1. C is skipped unless the plain mean of K + 1 runs is nearly as good:
     Val(K/(K+1) · A + 1/(K+1) · C) ≥ τ · Val(A).
  2. A search maximises Val(A'), A'_c = λ_c A_c + (1 − λ_c) C_c, over λ in
     λ0 ± (1 − λ0)/2 from λ0 = K/(K+1).
  3. C goes in if Val(A') ≥ Val(A). A second search then starts from λ, in
     [0.3, 1], and a third from its result if that is at least 1 + 0.3 (1 − τ)
     times as good as the first search's. The result of the last search counts,
     even if an earlier one was better.

  Args:
    trees: The runs' weights, at least one.
    validate: From weights to a score, higher is better and positive, on
      held-out data of the training distribution.
    minimise: The search, such as one of Nevergrad's.
    depth: Parts of a name that make a component, see `components`.
    threshold: τ, in [0, 1]; 0 skips nothing.
    budget: Evaluations per search and component, at least 1.
    scores: `validate` of every tree, if known already.

  Returns:
    The soup.

  Raises:
    ValueError: If there are no trees, not as many scores as trees, a score is
      NaN, an argument is out of range, or the structures or leaves of integers,
      booleans or PRNG keys differ; the leaf is named.

  References:
    Fassold, Manifold mixing model soups for better out-of-distribution
    performance, 2023, https://arxiv.org/abs/2309.08610
  """
  if not 0 <= threshold <= 1:
    raise ValueError(f"threshold must be in [0, 1], got {threshold}.")
  if budget < 1:
    raise ValueError(f"budget must be at least 1, got {budget}.")
  groups = components(trees, depth)
  order, best = ranked(trees, validate, scores)
  if best < 0:
    raise ValueError(
      "scores must be at least 0, as accuracies are, or τ times the best would"
      f" be better than it; the best is {best}."
    )
  soup, used = trees[order[0]], [order[0]]
  shares = {name: [1.0] for name in groups}
  skipped, rejected = [], []

  for i in order[1:]:
    mix = functools.partial(_mix, soup, trees[i], groups)
    even = np.full(len(groups), len(used) / (len(used) + 1))
    if not groups or validate(mix(even)) < threshold * best:
      skipped.append(i)
      continue
    searched = _search(mix, validate, minimise, even, best, threshold, budget)
    if searched is None:
      rejected.append(i)
      continue
    factors, best = searched
    for name, factor in zip(groups, map(float, factors), strict=True):
      shares[name] = [factor * old for old in shares[name]] + [1 - factor]
    soup, used = mix(factors), [*used, i]
  return ManifoldSoup(
    params=soup,
    ingredients=tuple(used),
    shares=shares,
    score=float(best),
    skipped=tuple(skipped),
    rejected=tuple(rejected),
  )


def _mix(soup: Any, candidate: Any, groups: Components, factors: Vector) -> Any:
  chosen = dict(zip(groups, map(float, factors), strict=True))
  return mix_components(soup, candidate, groups, chosen)


def _search(
  mix: Callable[[Vector], Any],
  validate: Callable[[Any], float],
  minimise: Minimise,
  even: Vector,
  best: float,
  threshold: float,
  budget: int,
) -> tuple[Vector, float] | None:
  """Up to three searches; None if the first one ends below `best`."""

  def search(start: Vector, low: Vector, high: Vector) -> tuple[Vector, float]:
    found = minimise(
      lambda factors: 1 - validate(mix(factors)),
      start,
      low,
      high,
      budget * len(even),
    )
    return found, validate(mix(found))

  reach = 0.5 * (1 - even)
  low, high = np.full_like(even, 0.3), np.ones_like(even)
  factors, first = search(even, even - reach, even + reach)
  if not first >= best:  # NaN too
    return None
  factors, score = search(factors, low, high)
  if score >= (1 + 0.3 * (1 - threshold)) * first:
    factors, score = search(factors, low, high)
  return factors, score
