"""Operations on weights: lines, soups and averages of trajectories.

All work on plain pytrees and know nothing of models or data; what has to be
chosen on data takes a function `validate`, from weights to a score.
"""

from gmixout_jax.averaging.components import components as components
from gmixout_jax.averaging.components import mix_components as mix_components
from gmixout_jax.averaging.interpolation import interpolate as interpolate
from gmixout_jax.averaging.interpolation import mean as mean
from gmixout_jax.averaging.interpolation import mix_leaves as mix_leaves
from gmixout_jax.averaging.manifold import ManifoldSoup as ManifoldSoup
from gmixout_jax.averaging.manifold import manifold_soup as manifold_soup
from gmixout_jax.averaging.model_stock import Stock as Stock
from gmixout_jax.averaging.model_stock import model_stock as model_stock
from gmixout_jax.averaging.soups import LearnedSoup as LearnedSoup
from gmixout_jax.averaging.soups import Soup as Soup
from gmixout_jax.averaging.soups import greedy_soup as greedy_soup
from gmixout_jax.averaging.soups import learned_soup as learned_soup
from gmixout_jax.averaging.swad import Window as Window
from gmixout_jax.averaging.swad import swad_window as swad_window
from gmixout_jax.averaging.trajectory import AverageState as AverageState
from gmixout_jax.averaging.trajectory import average as average
from gmixout_jax.averaging.trajectory import average_params as average_params
from gmixout_jax.averaging.trajectory import exponential as exponential
from gmixout_jax.averaging.trajectory import segments as segments
from gmixout_jax.averaging.trajectory import uniform as uniform
