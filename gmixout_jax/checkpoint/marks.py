"""Whose folder it is: nothing is removed from one that is not ours."""

import importlib.metadata
import json
import pathlib
import re

from gmixout_jax.checkpoint.files import CheckpointError, replacing

MARK = "gmixout-checkpoints.json"
UNFINISHED = "gmixout-unfinished-"

_KNOWN = re.compile(rf"lock|{MARK}|{UNFINISHED}\d+|\d{{8,}}\.damaged.*|\..*")


def is_step(name: str) -> bool:
  """Whether a folder is called as a checkpoint is.

  Example:
    >>> is_step("00000200"), is_step("200"), is_step("0")
    (True, False, False)
  """
  return name.isascii() and name.isdigit() and name == f"{int(name):08d}"


def check(folder: pathlib.Path) -> list[int]:
  """Whether a folder is one of checkpoints, or may become one.

  Args:
    folder: It may not be there.

  Returns:
    The steps in it that were not written under the mark: nobody removes them.

  Raises:
    CheckpointError: If it holds what is no checkpoint, or its mark is damaged.
  """
  if (folder / MARK).is_file():
    return _read(folder / MARK)
  names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
  found = [
    name
    for name in names
    if is_step(name) and (folder / name / "manifest.json").is_file()
  ]
  others = [
    name
    for name in sorted(names)
    if not _KNOWN.fullmatch(name)
    # 0.1.0 gave a checkpoint its number before it was whole.
    and not (found and is_step(name))
  ]
  if others:
    more = ", ..." if len(others) > 5 else ""
    raise CheckpointError(
      f"{folder} must be empty, or hold checkpoints that this library wrote; it"
      f" holds {', '.join(map(repr, others[:5]))}{more}: give the run a folder"
      " of its own."
    )
  return sorted(map(int, found))


def claim(folder: pathlib.Path) -> frozenset[int]:
  """Marks a folder as one of checkpoints; see `check`.

  Args:
    folder: It is there, and nobody else writes to it.
  """
  found, mark = check(folder), folder / MARK
  if not mark.is_file():
    content = {"by": importlib.metadata.version("gmixout-jax"), "found": found}
    with replacing(mark) as temporary:
      temporary.write_bytes(json.dumps(content).encode() + b"\n")
  return frozenset(found)


def aside(path: pathlib.Path) -> pathlib.Path:
  """A free name for a damaged checkpoint."""
  wanted, number = path.with_name(f"{path.name}.damaged"), 1
  while wanted.exists():
    number += 1
    wanted = path.with_name(f"{path.name}.damaged-{number}")
  return wanted


def _read(mark: pathlib.Path) -> list[int]:
  try:
    found = json.loads(mark.read_text())["found"]
    if not all(isinstance(step, int) for step in found):
      raise ValueError(f"found must be a list of steps, got {found!r}")
    return found
  except (ValueError, LookupError, TypeError, RecursionError) as error:
    raise CheckpointError(f"{mark} is damaged: {error!r}.") from None
