"""The policy every test runs under: strict numerics on eight CPU devices."""

# ruff: noqa: E402 - what Python, XLA and jax read comes before their imports

import gc
import os
import pathlib
import shutil
import sys

ROOT = pathlib.Path(__file__).parents[1]

# Compiling what a process imports would take longer than all else that it does:
# so bytecode is kept, for the workers and for what tests start, too. Who asked
# for none beside the sources finds none there.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
  sys.dont_write_bytecode = False
  sys.pycache_prefix = str(ROOT / ".pytest_cache" / "bytecode")
  os.environ.setdefault("PYTHONPYCACHEPREFIX", sys.pycache_prefix)

# Before jax: eight host devices, and no accelerator unless asked for. Nearly
# all the time of the suite is spent on compiling, so most tests and what they
# start do without LLVM's optimizations; those marked `optimized` have them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# What was compiled before is read back, by the other worker and by what tests
# start, too: after a small change the suite takes half the time.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR",
  str(ROOT / ".pytest_cache" / "compiled"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
# The workers fill the cores: threads of NumPy's would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

UNOPTIMIZED = "JAX_DISABLE_MOST_OPTIMIZATIONS"
SHARED = ROOT.parent / "shared"


def pytest_configure(config: pytest.Config) -> None:
  """Begins the cache of compiled programs anew when it has grown large."""
  folder = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
  if hasattr(config, "workerinput") or not folder.is_dir():
    return
  if sum(file.stat().st_size for file in folder.iterdir()) > 2**30:
    shutil.rmtree(folder)


def pytest_collection_finish(session: pytest.Session) -> None:
  """What has been imported stays; looking through it again takes time.

  Tracing makes so many objects that Python would look for garbage all the time:
  a tenth of the suite.
  """
  del session
  gc.collect()
  gc.freeze()
  gc.set_threshold(100_000, 50, 100)


@pytest.fixture(autouse=True)
def _optimized(request: pytest.FixtureRequest, monkeypatch):
  """Compiles as users do in tests that look at what was compiled."""
  before = os.environ[UNOPTIMIZED]
  if request.node.get_closest_marker("optimized") is None:
    yield
    # All tests that follow would compile for longer.
    assert jax.config.values[UNOPTIMIZED.lower()] == (before != "0")
    return
  monkeypatch.setenv(UNOPTIMIZED, "0")  # for what it starts
  jax.config.update(UNOPTIMIZED.lower(), False)
  # A program that was read back says less of itself than one just compiled.
  folder = jax.config.jax_compilation_cache_dir
  _read_compiled_from(None)
  yield
  jax.config.update(UNOPTIMIZED.lower(), before != "0")
  _read_compiled_from(folder)


def _read_compiled_from(folder: str | None) -> None:
  """Also forgets what is in memory, which does not know its settings."""
  jax.config.update("jax_compilation_cache_dir", folder)
  compilation_cache.reset_cache()
  jax.clear_caches()


@pytest.fixture
def shared() -> pathlib.Path:
  """The folder of research data beside the checkout; skips without it."""
  if not SHARED.is_dir():
    pytest.skip(f"no research data at {SHARED}")
  return SHARED


@pytest.fixture
def strict_promotion():
  """No dtype becomes another unless the code says so, as some projects ask."""
  with jax.numpy_dtype_promotion("strict"):
    yield


@pytest.fixture
def rng() -> np.random.Generator:
  """A NumPy generator with a fixed seed."""
  return np.random.default_rng(0)
