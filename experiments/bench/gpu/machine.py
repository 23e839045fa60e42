"""What figures depend on besides the code: the devices and the versions.

  python -m experiments.bench.gpu.machine

prints it as one line of JSON. `probe` asks another process for it, as a process
that has seen a GPU keeps most of its memory.
"""

import importlib.metadata
import json
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any, get_args

ROOT = pathlib.Path(__file__).parents[3]

# What runs the programs, and what makes them.
_NAMED = re.compile(
  r"(jax|nvidia-|triton|(flax|optax|orbax-checkpoint|numpy|chex|pytest)$)",
)


def describe() -> dict[str, Any]:
  """Describes this machine, as far as JAX tells."""
  # Here, so that the process that asks another one does not need them.
  import jax
  from jax.extend import backend

  from pallas_kernels import dispatch

  device = jax.devices()[0]
  return {
    "platform": jax.default_backend(),
    "device": device.device_kind,
    "devices": jax.device_count(),
    "compute_capability": getattr(device, "compute_capability", None),
    "runtime": backend.get_backend().platform_version,
    "implementations": {
      name: dispatch.obstacle(name) or "runs"
      for name in get_args(dispatch.Implementation)
    },
    "python": platform.python_version(),
    "system": platform.platform(),
    "versions": versions(),
  }


def versions() -> dict[str, str]:
  """Installed packages that a figure depends on, and their versions."""
  found = {
    each.metadata["Name"].lower(): each.version
    for each in importlib.metadata.distributions()
    if each.metadata["Name"]
  }
  return {name: found[name] for name in sorted(found) if _NAMED.match(name)}


def probe(seconds: float = 90) -> dict[str, Any]:
  """What `describe` says in a process of its own.

  Args:
    seconds: How long it may take.

  Raises:
    RuntimeError: If there is no answer; says what was printed last.
  """
  command = [sys.executable, "-m", "experiments.bench.gpu.machine"]
  try:
    done = subprocess.run(
      command, cwd=ROOT, capture_output=True, text=True, timeout=seconds
    )
  except subprocess.TimeoutExpired:
    raise RuntimeError(
      f"JAX has not found its devices in {seconds:g} s."
    ) from None
  if done.returncode:
    *_, last = done.stderr.strip().splitlines() or ["it printed nothing"]
    raise RuntimeError(f"JAX does not start: {last}")
  return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
  print(json.dumps(describe()))
