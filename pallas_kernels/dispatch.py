"""Which implementation of a kernel runs, and why another one cannot.

===============  =========================================================
"xla"            the reference, compiled by XLA; runs everywhere
"mosaic_gpu"     Pallas for NVIDIA Hopper and newer
"triton"         jax-triton for NVIDIA Ampere and newer, an optional extra
===============  =========================================================
"""

import contextlib
import contextvars
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax

Implementation = Literal["xla", "mosaic_gpu", "triton"]

# Fastest first; None takes the first that can run. No GPU kernel has been
# measured yet, and one that has not beaten XLA is nobody's default: put it in
# front when `python -m experiments.bench kernels` has shown that it does.
PREFERENCE: tuple[Implementation, ...] = ("xla",)

# jax-triton by the first jax that breaks it: every call of jax-triton 0.4.1
# fails on jax 0.12.0, whose dead-code rules take one more argument.
_BROKEN_TRITON: dict[tuple[int, ...], tuple[int, ...]] = {(0, 4, 1): (0, 12, 0)}
_OLDEST_TRITON = (0, 4, 1)

_interpreted = contextvars.ContextVar("interpreted", default=False)


def choose(implementation: Implementation | None) -> Implementation:
  """The implementation to run on this process' first device.

  Args:
    implementation: A name, or None for the fastest that can run.

  Raises:
    ValueError: If there is no such name.
    NotImplementedError: If the one asked for cannot run; says why.

  >>> choose(None)
  'xla'
  """
  if implementation is None:
    return next(name for name in PREFERENCE if obstacle(name) is None)
  if implementation not in get_args(Implementation):
    raise ValueError(
      f"implementation must be None or one of {get_args(Implementation)}, got"
      f" {implementation!r}."
    )
  reason = obstacle(implementation)
  if reason is not None:
    raise NotImplementedError(
      f"implementation={implementation!r} cannot run here: {reason}."
    )
  return implementation


def module(kernel: str, name: Implementation) -> Any:
  """The module of a kernel's implementation; imports only what is asked for.

  >>> module("pack", "xla").__name__
  'pallas_kernels.pack.reference'
  """
  part = "reference" if name == "xla" else name
  return importlib.import_module(f"pallas_kernels.{kernel}.{part}")


def obstacle(implementation: Implementation) -> str | None:
  """Why an implementation cannot run on the first device; None if it can."""
  if implementation == "xla":
    return None
  if implementation == "mosaic_gpu":
    return None if _interpreted.get() else too_old((9, 0), "Hopper")
  return too_old((8, 0), "Ampere") or _triton_obstacle()


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
  """Lets "mosaic_gpu" run in the GPU interpreter, on any device; for tests.

  What is traced inside is interpreted; a jitted function that was traced
  outside stays what it is.
  """
  token = _interpreted.set(True)
  try:
    yield
  finally:
    _interpreted.reset(token)


def is_interpreted() -> bool:
  """Whether kernels that are traced now are interpreted."""
  return _interpreted.get()


def interpreter() -> Any:
  """The `interpret` argument of a Mosaic GPU kernel that is traced now."""
  if not _interpreted.get():
    return None
  # Here, as the XLA path must not need it: not every jaxlib has it.
  from jax.experimental.pallas import mosaic_gpu

  return mosaic_gpu.InterpretGPUParams()


def too_old(least: tuple[int, int], name: str) -> str | None:
  """Why the first device is no NVIDIA GPU of that generation or newer."""
  device = jax.local_devices()[0]
  wanted = f"needs an NVIDIA GPU of the {name} generation or newer"
  capability = getattr(device, "compute_capability", None)
  if device.platform != "gpu" or capability is None:
    return f"it {wanted}, and the first device is {device.device_kind!r}"
  try:
    found = tuple(int(part) for part in str(capability).split("."))
  except ValueError:  # ROCm names architectures, such as gfx90a
    return f"it {wanted}, and {device.device_kind!r} is not NVIDIA's"
  if found < least:
    return (
      f"it {wanted} (compute capability {least[0]}.{least[1]}), and"
      f" {device.device_kind!r} has {capability}"
    )
  return None


def _triton_obstacle() -> str | None:
  """Why jax-triton cannot be used with this jax."""
  if importlib.util.find_spec("jax_triton") is None:
    return "jax-triton is not installed (pip install 'gmixout-jax[triton]')"
  return triton_mismatch(
    importlib.metadata.version("jax-triton"), jax.__version__
  )


def triton_mismatch(triton: str, jax_version: str) -> str | None:
  """Why two versions of jax-triton and jax do not go together; None if they do.

  >>> triton_mismatch("0.4.1", "0.11.2")
  >>> triton_mismatch("0.4.1", "0.12.0.1")
  'jax-triton 0.4.1 breaks on jax 0.12.0 and newer, found jax 0.12.0.1'
  """
  found, numbers = _numbers(triton), _numbers(jax_version)
  if found < _OLDEST_TRITON:
    return f"jax-triton must be at least 0.4.1, found {triton}"
  limit = _BROKEN_TRITON.get(found)
  if limit is not None and numbers >= limit:
    named = ".".join(map(str, limit))
    return (
      f"jax-triton {triton} breaks on jax {named} and newer, found jax"
      f" {jax_version}"
    )
  return None


def _numbers(version: str) -> tuple[int, ...]:
  """First three parts of a version, of which development versions have two."""
  parts = [part for part in version.split(".")[:3] if part.isdigit()]
  return tuple(map(int, parts))
