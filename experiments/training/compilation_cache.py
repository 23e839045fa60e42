"""Compiled programs that outlive the process: on by default, in one folder.

A folder per version of jax and kind of device, for a program of another one is
of no use. JAX_COMPILATION_CACHE_DIR names another, and
JAX_ENABLE_COMPILATION_CACHE=0 does without.
"""

import os
import pathlib
import platform
import re
import tempfile
import zlib
from collections.abc import Callable

import jax


def keep(say: Callable[[str], None] = lambda sentence: None) -> None:
  """Keeps compiled programs on disk, unless that is impossible or unwanted.

  To be called once the devices are known, so after
  `jax.distributed.initialize`. Nothing of it is ever an error.

  Args:
    say: Called with one sentence that says where they are kept, or why not.
  """
  if not jax.config.jax_enable_compilation_cache:
    return
  given = jax.config.jax_compilation_cache_dir  # the environment's, too
  if given is not None:
    say(f"Compiled programs are kept in {given}.")
    return
  path = folder()
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path):
      pass  # exists for others to see, and may not be writable all the same
  except OSError as error:
    say(f"Compiled programs are not kept: {error}.")
    return
  jax.config.update("jax_compilation_cache_dir", str(path))
  say(f"Compiled programs are kept in {path}.")


def folder() -> pathlib.Path:
  """Where programs for the devices of this process are kept by default."""
  try:
    home = pathlib.Path.home() / ".cache"
  except RuntimeError:  # no home at all
    home = pathlib.Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
  cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or home)
  kind = re.sub(r"[^A-Za-z0-9.]+", "-", jax.devices()[0].device_kind).lower()
  if jax.default_backend() == "cpu":
    # Programs are made for the instructions that a processor has, and a home
    # may be shared by several kinds.
    kind += f"-{platform.machine()}-{zlib.crc32(_instructions()):08x}"
  return cache / "gmixout-jax" / f"{jax.__version__}-{kind}"


def _instructions() -> bytes:
  """What the processor can do, where the system tells."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_bytes().splitlines()
  except OSError:
    return b""
  names = (b"flags", b"features")
  return next((x for x in lines if x.lower().startswith(names)), b"")
