"""The manifest of a checkpoint: written last, and checked before anything else.

It holds what is no array, and size and SHA-256 of every file beside it; its own
SHA-256 stands around it.
"""

import hashlib
import json
import math
import operator
import pathlib
import reprlib
from collections.abc import Mapping
from typing import Any

from gmixout_jax.checkpoint.files import CheckpointError, replacing


class _Absent:
  """Equal to no value of JSON, the word "absent" included."""

  def __str__(self) -> str:
    return "absent"


_ABSENT = _Absent()


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


def as_json(what: str, value: Any) -> Any:
  """A copy of a value, as a manifest will give it back.

  Args:
    what: The argument's name, for messages.
    value: What JSON can hold.

  Returns:
    The copy.

  Raises:
    TypeError: If something in it has no form in JSON.
    ValueError: If a number is not finite, or it holds itself or is nested too
      deep.
  """
  try:
    return json.loads(json.dumps(value, allow_nan=False))
  except (TypeError, ValueError, RecursionError) as error:
    kind = TypeError if isinstance(error, TypeError) else ValueError
    # Not all of it, which may be long, or nested too deep to be shown.
    shown = reprlib.repr(value)
    raise kind(f"{what} must be JSON, got {shown}: {error}.") from None


def as_step(step: Any) -> int:
  """Steps taken, from any kind of integer.

  Raises:
    ValueError: If it is none, or below 0.
  """
  try:
    checked = operator.index(step)
  except TypeError:
    checked = -1
  if checked < 0:
    raise ValueError(f"step must be an integer of at least 0, got {step!r}.")
  return checked


def as_score(score: Any) -> float | None:
  """A score, from any kind of real number; None without one.

  Raises:
    ValueError: If it is no number, or not finite.
  """
  if score is None:
    return None
  try:
    finite = math.isfinite(score)
  except (TypeError, ValueError, OverflowError):
    finite = False
  if not finite:
    raise ValueError(f"score must be a finite number or None, got {score!r}.")
  return float(score)


def difference(saved: Any, ours: Any, path: str = "") -> str | None:
  """Says where two values of JSON first differ, and in what; None if nowhere.

  Empty lists and objects count: where one has them, the other must too.
  """
  if isinstance(saved, list) and isinstance(ours, list):
    saved, ours = dict(enumerate(saved)), dict(enumerate(ours))
  if not (isinstance(saved, dict) and isinstance(ours, dict)):
    same = saved == ours
    return None if same else f"{path!r} is {saved} there and {ours} here"
  for key in dict.fromkeys([*ours, *saved]):
    inner = f"{path}/{key}" if path else str(key)
    found = difference(saved.get(key, _ABSENT), ours.get(key, _ABSENT), inner)
    if found is not None:
      return found
  return None


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
