"""What the tests of all kernels need: data, tolerances, CUDA lowering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

KEPT = 0.1
KEY = jax.random.key(5, impl="threefry2x32")
DTYPES = [jnp.float32, jnp.bfloat16]

# Largest difference of two implementations, relative to values of order one:
# some units in the last place, as XLA and the kernels fuse differently.
TOLERANCE = {jnp.float32: 2e-6, jnp.bfloat16: 2**-7}


def gpu(test):
  """Marks a test that needs a CUDA device, and skips it without one."""
  missing = pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="needs a CUDA device"
  )
  return pytest.mark.gpu(missing(test))


def normal(rng, shape, dtype=jnp.float32):
  return jnp.asarray(rng.normal(size=shape).astype(dtype))


def assert_close(actual, expected, dtype):
  assert actual.dtype == expected.dtype
  np.testing.assert_allclose(
    np.asarray(actual, np.float64),
    np.asarray(expected, np.float64),
    rtol=TOLERANCE[dtype],
    atol=TOLERANCE[dtype],
  )


def cuda_module(function, *types, donate=()):
  """The module that `function` is lowered to for a CUDA device."""
  traced = jax.jit(function, donate_argnums=donate).trace(*types)
  return traced.lower(lowering_platforms=("cuda",)).as_text()
