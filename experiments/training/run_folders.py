"""Whose folder `--checkpoint` names: nothing is put into one of something else.

A folder of runs is marked when the first of them is saved in it. One without
the mark must be empty, or hold what commands of before the mark left there.
"""

import importlib.metadata
import json
import pathlib
import re
from collections.abc import Collection

from gmixout_jax.checkpoint import CheckpointError, folders, marks
from gmixout_jax.checkpoint.files import replacing

MARK = "gmixout-runs.json"

_OURS = re.compile(
  rf"lock|locks|jobs|failed|record\.json|{MARK}|.+-[0-9a-f]{{12}}|.+\.jsonl"
  r"|features_[0-9a-f]{16}\.safetensors|\..*"
)
_CHECKPOINTS = re.compile(r"run(_\d+)?")


def check(
  folder: pathlib.Path, beside: Collection[pathlib.Path | None] = ()
) -> None:
  """Whether a folder is one of runs, or may become one; it is not touched.

  Args:
    folder: It may not be there.
    beside: What the same command puts elsewhere, perhaps into it.

  Raises:
    CheckpointError: If it holds what is no run; it is named.
  """
  if not folder.is_dir() or (folder / MARK).is_file():
    return
  named = {
    above
    for path in beside
    if path is not None
    for above in (path.resolve(), *path.resolve().parents)
  }
  others = [
    path.name
    for path in sorted(folder.iterdir())
    if not _is_ours(path) and path.resolve() not in named
  ]
  if others:
    more = ", ..." if len(others) > 5 else ""
    raise CheckpointError(
      f"--checkpoint {folder} must be empty, or a folder that runs were saved"
      f" in; it holds {', '.join(map(repr, others[:5]))}{more}: give the runs a"
      " folder of their own."
    )


def claim(
  folder: pathlib.Path, beside: Collection[pathlib.Path | None] = ()
) -> None:
  """Makes and marks a folder of runs; see `check`.

  Raises:
    CheckpointError: If it holds what is no run.
    OSError: If it cannot be written to; it is named.
  """
  check(folder, beside)
  if (folder / MARK).is_file():
    return
  mark = {"by": importlib.metadata.version("gmixout-jax")}
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / MARK) as temporary:
      temporary.write_text(json.dumps(mark) + "\n")
  except OSError as error:
    what = f"files cannot be written to {folder}"
    raise folders.about(error, what) from None


def _is_ours(path: pathlib.Path) -> bool:
  """Whether a command of before the mark may have left it."""
  if _CHECKPOINTS.fullmatch(path.name):
    try:
      marks.check(path)
    except CheckpointError:
      return False
    return path.is_dir()
  return bool(_OURS.fullmatch(path.name))
