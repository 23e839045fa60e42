"""GMixout for JAX: robust fine-tuning through random sub-networks."""

from gmixout_jax import averaging, clip, linen, nnx, parallel
from gmixout_jax.accessors import gmixout_eval_params, gmixout_masks
from gmixout_jax.fused import FusedAdamW
from gmixout_jax.recipe import (
  check_gmixout_learning_rate,
  gmixout_learning_rate,
)
from gmixout_jax.relatives import mixout, random_mask
from gmixout_jax.targets import VIT_RULES, gmixout_labels
from gmixout_jax.transform import GMixoutState, gmixout
from gmixout_jax.wrapper import MixedParams

__all__ = [
  "VIT_RULES",
  "FusedAdamW",
  "GMixoutState",
  "MixedParams",
  "averaging",
  "check_gmixout_learning_rate",
  "clip",
  "gmixout",
  "gmixout_eval_params",
  "gmixout_labels",
  "gmixout_learning_rate",
  "gmixout_masks",
  "linen",
  "mixout",
  "nnx",
  "parallel",
  "random_mask",
]
