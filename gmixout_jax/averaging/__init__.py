"""Operations on weights: lines, soups and averages of trajectories.

All work on plain pytrees and know nothing of models or data. What is chosen on
data takes a function `validate`, from weights to a score.
"""

from gmixout_jax.averaging.components import components, mix_components
from gmixout_jax.averaging.interpolation import interpolate, mean, mix_leaves
from gmixout_jax.averaging.manifold import ManifoldSoup, manifold_soup
from gmixout_jax.averaging.model_stock import Stock, model_stock
from gmixout_jax.averaging.soups import (
  LearnedSoup,
  Soup,
  greedy_soup,
  learned_soup,
)
from gmixout_jax.averaging.swad import Window, swad_window
from gmixout_jax.averaging.trajectory import (
  AverageState,
  average,
  average_params,
  exponential,
  segments,
  uniform,
)

__all__ = [
  "AverageState",
  "LearnedSoup",
  "ManifoldSoup",
  "Soup",
  "Stock",
  "Window",
  "average",
  "average_params",
  "components",
  "exponential",
  "greedy_soup",
  "interpolate",
  "learned_soup",
  "manifold_soup",
  "mean",
  "mix_components",
  "mix_leaves",
  "model_stock",
  "segments",
  "swad_window",
  "uniform",
]
