"""GMixout for JAX: robust fine-tuning through random sub-networks."""

from gmixout_jax import averaging as averaging
from gmixout_jax import clip as clip
from gmixout_jax import linen as linen
from gmixout_jax import nnx as nnx
from gmixout_jax import parallel as parallel
from gmixout_jax.accessors import gmixout_eval_params as gmixout_eval_params
from gmixout_jax.accessors import gmixout_masks as gmixout_masks
from gmixout_jax.fused import FusedAdamW as FusedAdamW
from gmixout_jax.relatives import mixout as mixout
from gmixout_jax.relatives import random_mask as random_mask
from gmixout_jax.targets import VIT_RULES as VIT_RULES
from gmixout_jax.targets import gmixout_labels as gmixout_labels
from gmixout_jax.transform import GMixoutState as GMixoutState
from gmixout_jax.transform import gmixout as gmixout
from gmixout_jax.wrapper import MixedParams as MixedParams
