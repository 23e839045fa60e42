"""Lines and planes in weight space: zero-shot, fine-tuned, anchor.

Accuracy along the line from the pretrained to the fine-tuned weights (as in
WiSE-FT) and on the plane through three points, with distances true to scale.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

Weights = Any  # a pytree of arrays
Score = Callable[[Weights], float]


def mix(points: Sequence[Weights], shares: Sequence[float]) -> Weights:
  """Σ share · point, leaf by leaf, in the leaves' own type."""

  def combine(*leaves: Any) -> np.ndarray:
    total = np.zeros(np.shape(leaves[0]), np.float64)
    for share, leaf in zip(shares, leaves, strict=True):
      total += share * np.asarray(leaf, np.float64)
    return total.astype(leaves[0].dtype)

  return jax.tree.map(combine, *points)


def line(
  score: Score, start: Weights, end: Weights, steps: Sequence[float]
) -> list[float]:
  """Scores (1 − α) start + α end at every α of `steps`, in [0, 1] or beyond."""
  return [score(mix([start, end], [1 - a, a])) for a in steps]


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
  """The plane through three points, with an orthonormal basis.

  Attributes:
    points: The three weights.
    coordinates: Where they lie: the first at (0, 0), the second on the x axis,
      the third above it. Distances are those of weight space.

  Raises:
    ValueError: If the points lie on a line.
  """

  points: tuple[Weights, Weights, Weights]
  coordinates: Float[np.ndarray, "3 2"]

  @classmethod
  def through(cls, first: Weights, second: Weights, third: Weights) -> "Plane":
    """The plane through three pytrees of weights."""
    origin, a, b = (flat(point) for point in (first, second, third))
    u, w = a - origin, b - origin
    length = np.linalg.norm(u)
    along = w @ u / length if length else 0.0
    height = np.sqrt(max(w @ w - along**2, 0.0))
    if length == 0 or height <= 1e-9 * length:
      raise ValueError("the three points lie on a line: there is no plane.")
    return cls(
      (first, second, third), np.array([[0, 0], [length, 0], [along, height]])
    )

  def at(self, x: float, y: float) -> Weights:
    """The weights at a point of the plane."""
    (_, (length, _), (along, height)) = self.coordinates
    third = y / height
    second = (x - third * along) / length
    return mix(self.points, [1 - second - third, second, third])

  def grid(self, *, points: int) -> tuple[np.ndarray, np.ndarray]:
    """The axes of a grid around the three points, and a fifth beyond them.

    Args:
      points: Per axis.
    """
    low, high = self.coordinates.min(axis=0), self.coordinates.max(axis=0)
    reach = 0.2 * (high - low).max()
    x = np.linspace(low[0] - reach, high[0] + reach, points)
    return x, np.linspace(low[1] - reach, high[1] + reach, points)

  def scores(
    self, score: Score, x: np.ndarray, y: np.ndarray
  ) -> Float[np.ndarray, "y x"]:
    """Scores the grid; row i is at y[i]."""
    return np.array([[score(self.at(a, b)) for a in x] for b in y])


def flat(tree: Weights) -> Float[np.ndarray, " size"]:
  """All weights as one vector."""
  leaves = jax.tree.leaves(tree)
  return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in leaves])
