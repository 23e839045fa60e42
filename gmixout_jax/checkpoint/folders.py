"""Folders that one run writes to, and errors that say which one it was."""

import contextlib
import fcntl
import os
import pathlib
import platform
from collections.abc import Iterator

from gmixout_jax.checkpoint.files import Path, local_path


class Held(ValueError):
  """A folder that another run writes to."""


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
  """Holds a folder, which is made if need be, against other runs.

  However this process ends, the folder is free then.

  Args:
    folder: The folder.

  Yields:
    Nothing.

  Raises:
    Held: If another run holds it.
    ValueError: If it is a bucket.
    OSError: If the folder cannot be written to; it is named.
  """
  folder = local_path("folder", folder).absolute()
  try:
    lock = hold(folder)
  except OSError as error:
    raise about(error, f"files cannot be written to {folder}") from None
  try:
    yield
  finally:
    os.close(lock)


def hold(folder: pathlib.Path) -> int:
  """Takes a folder; closing the descriptor that it returns gives it back."""
  folder.mkdir(parents=True, exist_ok=True)
  lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    owner = os.read(lock, 200).decode(errors="replace")
    os.close(lock)
    raise Held(
      f"{folder} is written to by another run ({owner or 'unknown'}): wait for"
      " it, or give this run a folder of its own."
    ) from None
  os.truncate(lock, 0)
  os.write(lock, f"process {os.getpid()} on {platform.node()}".encode())
  return lock


def about(error: Exception, what: str) -> OSError:
  """The error as an OSError of its kind whose message says what failed."""
  code = error.errno if isinstance(error, OSError) else None
  reason = (isinstance(error, OSError) and error.strerror) or str(error)
  message = f"{what}: {reason}."
  return OSError(message) if code is None else OSError(code, message)
