"""Files that are whole or absent, and what is wrong with others.

All that this library reads or writes lies on a local or a mounted disk.
"""

import contextlib
import errno
import os
import pathlib
import re
import secrets
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

  A reader sees the old file or the new one, never half of it, and after a power
  failure, too. The name is nobody else's, and is no link. What `path` links to
  stays as it is.

  Raises:
    FileExistsError: If `path` is a folder, a device or the like.
  """
  if path.exists() and not path.is_file():
    raise FileExistsError(
      errno.EEXIST, f"{path} is no regular file, and is not replaced"
    )
  temporary = temporary_beside(path)
  # As the umask has it, and never what somebody else has put there.
  made = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
  mode = os.fstat(made).st_mode
  os.close(made)
  try:
    yield temporary
    # safetensors makes files that only their owner can read.
    temporary.chmod(mode)
    synced(temporary)
    os.replace(temporary, path)
    synced(path.parent)
  finally:
    temporary.unlink(missing_ok=True)


def temporary_beside(path: pathlib.Path) -> pathlib.Path:
  """A hidden name in the same folder that nobody can guess.

  Names are at most 255 bytes long, so of long ones a part is left.
  """
  short = path.name.encode()[:100].decode(errors="ignore")
  return path.with_name(f".{short}.{secrets.token_hex(8)}.tmp")


def synced(path: pathlib.Path) -> None:
  """Waits until a file or the names in a folder are on the disk."""
  descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno != errno.EINVAL:  # of file systems that cannot say it
      raise
  finally:
    os.close(descriptor)
