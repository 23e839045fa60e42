"""How far weights are from others: in kernels, steps and averages alike."""

import jax
import jax.numpy as jnp


def difference(weights: jax.Array, others: jax.Array) -> jax.Array:
  """The difference of two arrays of one shape and type.

  It is 0 where both are one infinity, as a buffer that masks attention holds
  some, and ∞ − ∞ is NaN.

  >>> difference(jnp.array([-jnp.inf, 3.0]), jnp.array([-jnp.inf, 1.0]))
  Array([0., 2.], dtype=float32)
  """
  same = (weights == others) & (jnp.abs(others) == jnp.inf)
  return jnp.where(same, jnp.zeros_like(weights), weights - others)
