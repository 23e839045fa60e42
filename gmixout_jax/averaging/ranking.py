"""The order in which a soup tries its runs: from the best score down."""

import math
from collections.abc import Callable, Sequence
from typing import Any


def ranked(
  trees: Sequence[Any],
  validate: Callable[[Any], float],
  scores: Sequence[float] | None,
) -> tuple[list[int], float]:
  """Indices of the trees, best first, and the best score.

  Args:
    trees: At least one.
    validate: From a tree to its score, higher is better.
    scores: Those of the trees, if known already.

  Raises:
    ValueError: If there are not as many scores as trees, or one is NaN.
  """
  scores = [validate(tree) for tree in trees] if scores is None else scores
  if len(scores) != len(trees):
    raise ValueError(
      f"there must be one score per tree, got {len(scores)} scores and"
      f" {len(trees)} trees."
    )
  for i, score in enumerate(scores):
    if math.isnan(score):
      raise ValueError(
        f"the score of trees[{i}] is NaN: leave out a run that diverged."
      )
  # Among equal scores the earlier tree comes first: the sort is stable.
  order = sorted(range(len(trees)), key=lambda i: -scores[i])
  return order, scores[order[0]]
