"""A network of mixed blocks and a head, its settings, inputs and gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gmixout_jax as gx

STEPS = 5  # two episodes, and one step

SETTINGS: dict[str, Any] = {
  "sparsity": 0.7,
  "resample_every": 2,
  "key": 3,
  "target": "blocks",
}
KERNELS: dict[str, Any] = SETTINGS | {"target": "kernel"}
EVERYTHING: dict[str, Any] = SETTINGS | {"target": None}

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


def filled(make):
  """A model of some weights. To initialize one, each shape is compiled."""
  graphdef, state = nnx.split(nnx.eval_shape(make))
  rng = np.random.default_rng(0)
  fill = lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)
  return nnx.merge(graphdef, jax.tree.map(fill, state))


def tapped_and_plain(model, of, x, **settings):
  """Gradients by taps in the products, and by taps on the weights.

  Returns:
    Two functions, and their arguments. (Compilers do the work of closures.)
  """
  graphdef, mixed, rest = gx.nnx.split(model, **(SETTINGS | settings))

  def tapped(mixed, rest, x):
    merge = lambda t: gx.nnx.merge(graphdef, mixed, t, rest)
    return jax.grad(lambda t: of(merge(t), x))(mixed.trainable())

  def plain(mixed, rest, x):
    merge = lambda t: nnx.merge(graphdef, mixed.inject(t), rest, copy=True)
    return jax.grad(lambda t: of(merge(t), x))(mixed.trainable())

  return tapped, plain, (mixed, rest, x)


def square(model, x):
  return jnp.mean(jnp.square(model(x)))
