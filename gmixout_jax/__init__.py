"""GMixout for JAX: robust fine-tuning through random sub-networks."""

from gmixout_jax import averaging, checkpoint, clip, linen, nnx, parallel
from gmixout_jax._core.held_weights import register_held_weights
from gmixout_jax.eval_params import gmixout_eval_params, gmixout_masks
from gmixout_jax.fused_adamw import FusedAdamW
from gmixout_jax.labels import VIT_RULES, gmixout_labels
from gmixout_jax.learning_rate import (
  gmixout_learning_rate,
  gmixout_progress,
)
from gmixout_jax.mixed_params import MixedParams
from gmixout_jax.summary import gmixout_summary
from gmixout_jax.transform import (
  GMixoutState,
  gmixout,
  mixout,
  random_mask,
)

__all__ = [
  "VIT_RULES",
  "FusedAdamW",
  "GMixoutState",
  "MixedParams",
  "averaging",
  "checkpoint",
  "clip",
  "gmixout",
  "gmixout_eval_params",
  "gmixout_labels",
  "gmixout_learning_rate",
  "gmixout_masks",
  "gmixout_progress",
  "gmixout_summary",
  "linen",
  "mixout",
  "nnx",
  "parallel",
  "random_mask",
  "register_held_weights",
]
