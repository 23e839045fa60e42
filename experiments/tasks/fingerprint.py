"""What tells a user's images from others whose folder has the same name."""

import hashlib
import os
import pathlib
from collections.abc import Sequence

WHOLE = 4 * 2**30
"""Bytes of images up to which all of their content counts."""

_ENDS = 4096


def of_files(
  root: pathlib.Path,
  files: Sequence[pathlib.Path],
  labels: Sequence[str] = (),
) -> str:
  """A hash of files below a folder: names, sizes and content.

  Of more than `WHOLE` bytes the first and last 4,096 of each file count, as
  reading all would take minutes.

  Args:
    root: The folder; its own name does not matter.
    files: In it, in any order.
    labels: Of each, where their names do not tell.

  Returns:
    Twelve hexadecimal digits.
  """
  sizes = {str(file): os.stat(file).st_size for file in files}
  whole = sum(sizes.values()) <= WHOLE
  found = hashlib.sha256()
  for file, size in sorted(sizes.items()):
    found.update(f"{os.path.relpath(file, root)}\0{size}\0".encode())
    with open(file, "rb") as content:
      if whole or size <= 2 * _ENDS:
        found.update(hashlib.file_digest(content, "sha256").digest())
      else:
        found.update(content.read(_ENDS))
        content.seek(-_ENDS, os.SEEK_END)
        found.update(content.read(_ENDS))
  for label, file in sorted(zip(labels, files, strict=False)):
    found.update(f"{label}\0{os.path.relpath(file, root)}\0".encode())
  return found.hexdigest()[:12]
