"""The policy every test runs under: strict numerics on eight CPU devices."""

import os
import pathlib

# Before jax: eight host devices, and no accelerator unless asked for. Nearly
# all the time of the suite is spent on compiling, so most tests and what they
# start do without LLVM's optimizations; those marked `optimized` have them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

UNOPTIMIZED = "JAX_DISABLE_MOST_OPTIMIZATIONS"
SHARED = pathlib.Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def _optimized(request: pytest.FixtureRequest, monkeypatch):
  """Compiles as users do in tests that look at what was compiled."""
  if request.node.get_closest_marker("optimized") is None:
    yield
    return
  before = os.environ[UNOPTIMIZED]
  monkeypatch.setenv(UNOPTIMIZED, "0")  # for what it starts
  jax.config.update(UNOPTIMIZED.lower(), False)
  jax.clear_caches()  # they do not know under which setting they were filled
  yield
  jax.config.update(UNOPTIMIZED.lower(), before != "0")
  jax.clear_caches()


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
