"""The manifest of a checkpoint: written last, and checked before anything else.

It holds what is no array, and size and SHA-256 of every file beside it; its own
SHA-256 stands around it.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from gmixout_jax.clip.weights import CheckpointError, replacing


def digests(folder: pathlib.Path) -> dict[str, list[Any]]:
  """Size and SHA-256 of every file, by its path in the folder."""
  return {
    path.relative_to(folder).as_posix(): [path.stat().st_size, _sha256(path)]
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def check_files(folder: pathlib.Path, files: Mapping[str, Any]) -> None:
  """Compares files with what `digests` said of them.

  Raises:
    CheckpointError: If one is missing or has changed; it is named.
  """
  for name, (size, digest) in files.items():
    path = folder / name
    if not path.is_file():
      raise CheckpointError(f"{path} is missing.")
    if path.stat().st_size != size:
      raise CheckpointError(
        f"{path} has {path.stat().st_size} bytes where {size} were written."
      )
    if _sha256(path) != digest:
      raise CheckpointError(f"{path} has changed since it was written.")


def write(path: pathlib.Path, manifest: dict[str, Any]) -> None:
  """Writes a manifest, all of it or nothing."""
  content = json.dumps(manifest, allow_nan=False)
  digest = hashlib.sha256(content.encode()).hexdigest()
  with replacing(path) as temporary:
    temporary.write_text(json.dumps({"sha256": digest, "manifest": content}))


def read(path: pathlib.Path) -> dict[str, Any]:
  """Reads a manifest.

  Raises:
    CheckpointError: If it is not what was written.
  """
  try:
    outer = json.loads(path.read_text())
    content = outer["manifest"]
    if hashlib.sha256(content.encode()).hexdigest() == outer["sha256"]:
      return json.loads(content)
  except (
    *(ValueError, LookupError, TypeError, AttributeError),
    RecursionError,  # nested too deep
  ) as error:
    raise CheckpointError(f"{path} is damaged: {error!r}.") from None
  raise CheckpointError(f"{path} has changed since it was written.")


def _sha256(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
