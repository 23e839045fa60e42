"""Files that are whole or absent, and what is wrong with others.

All that this library reads or writes lies on a local or a mounted disk.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator

Path = str | os.PathLike[str]


class CheckpointError(ValueError):
  """A file, or a folder of files, does not hold what it should.

  It is damaged, or of another model or run. The message names it, and says
  what was found and what was needed.
  """


# "gs://bucket", and "gs:/bucket", which pathlib makes of it. One letter may be
# a drive of Windows.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(name: str, path: Path) -> pathlib.Path:
  """A path on a local or a mounted disk, never the address of a bucket.

  Taken for a path, "gs://bucket/run" is a local folder of the name "gs:", and
  what was saved there is lost with the machine.

  Args:
    name: The argument's name, for the message.
    path: What was given for it.

  Returns:
    The path.

  Raises:
    ValueError: If it begins with a scheme; it is quoted.

  Example:
    >>> local_path("folder", "runs/gs").parts
    ('runs', 'gs')
  """
  if _SCHEME.match(os.fspath(path)):
    raise ValueError(
      f"{name} must be a path on a local or a mounted disk, got"
      f" {os.fspath(path)!r}: mount the bucket, or copy what is there."
    )
  return pathlib.Path(path)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary name beside `path`, which takes its place at the end.

  A reader sees the old file or the new one, never half of it.
  """
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    temporary.touch()
    mode = temporary.stat().st_mode
    yield temporary
    # safetensors makes files that only their owner can read.
    temporary.chmod(mode)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
