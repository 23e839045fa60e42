"""A network of mixed blocks and a head, its settings, and inputs for it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

STEPS = 5  # two episodes, and one step

SETTINGS: dict[str, Any] = {
  "sparsity": 0.7,
  "resample_every": 2,
  "key": 3,
  "target": "blocks",
}

INPUTS = jax.random.normal(jax.random.key(0), (STEPS, 16, 12))


class Network(nnx.Module):
  """Blocks that are mixed, and a head that is not."""

  def __init__(self, rngs):
    self.blocks = nnx.List([nnx.Linear(12, 20, rngs=rngs)])
    self.head = nnx.Linear(20, 3, rngs=rngs)

  def __call__(self, x):
    for block in self.blocks:
      x = jnp.tanh(block(x))
    return self.head(x)
