"""The policy every test runs under: strict numerics on eight CPU devices."""

import os
import pathlib

# Before jax: eight host devices, and no accelerator unless asked for.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = pathlib.Path(__file__).parents[2] / "shared"


@pytest.fixture
def shared() -> pathlib.Path:
  """The folder of research data beside the checkout; skips without it."""
  if not SHARED.is_dir():
    pytest.skip(f"no research data at {SHARED}")
  return SHARED


@pytest.fixture
def rng() -> np.random.Generator:
  """A NumPy generator with a fixed seed."""
  return np.random.default_rng(0)
