"""Models for the tests of `gmixout_jax.clip`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx


@pytest.fixture(scope="session")
def make():
  """Fills a model with NumPy's normals, every bias and scale included.

  Zero biases and unit scales would hide mistakes, and compiling JAX's
  initializers takes longer than all else in these tests.
  """

  def make(build, seed=0):
    graphdef, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    rng = np.random.default_rng(seed)
    leaves, treedef = jax.tree.flatten(state)
    leaves = [
      jnp.asarray(0.4 * rng.normal(size=leaf.shape), leaf.dtype)
      for leaf in leaves
    ]
    return nnx.merge(graphdef, jax.tree.unflatten(treedef, leaves))

  return make
