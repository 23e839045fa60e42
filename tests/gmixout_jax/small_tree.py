"""Parameters of three leaves, and a mix of them redrawn every two steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import gmixout_jax as gx

SAMPLERS = ("stratified", "uniform", "bernoulli", "neuron")

RESIDUALS = ("reset", "keep")


def axes(path, leaf):
  """The head is a stack of two matrices."""
  del path
  return {2: "io", 3: "lio"}[len(leaf.shape)]


make = functools.partial(
  gx.gmixout,
  sparsity=0.75,
  anchor_decay=0.3,
  resample_every=2,
  axes=axes,
  key=0,
)


def params_of(dtype=jnp.float32):
  return {
    "fc": {
      "kernel": jnp.linspace(-1, 1, 96, dtype=dtype).reshape(8, 12),
      "bias": jnp.ones(12, dtype),
    },
    "head": [jnp.linspace(1, 2, 96, dtype=dtype).reshape(2, 12, 4)],
  }


def loss(params):
  return sum(
    jnp.sum(jnp.square(leaf.astype(jnp.float32) - 0.5))
    for leaf in jax.tree.leaves(params)
  )


def assert_equal(one, other, rtol=1e-6):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-7),
    one,
    other,
  )


def types(tree):
  return jax.tree.map(jax.typeof, tree)
