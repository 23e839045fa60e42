"""Files that are whole or absent, and the error about what is in them."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

Path = str | os.PathLike[str]


class CheckpointError(ValueError):
  """A file, or a folder of files, does not hold what it should.

  It is damaged, or of another model or run. The message names it, and says
  what was found and what was needed.
  """


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
