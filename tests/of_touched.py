"""Runs the tests of some files: their own, and the examples in them.

  python tests/of_touched.py gmixout_jax/labels.py experiments/train.py

Those of ``gmixout_jax/labels.py`` are ``tests/gmixout_jax/test_labels*.py``.
Most tests are called by their subject, though. So where there is no such file,
it is the tests that import a module or name it; then those of the modules that
import it; then all of the folder, as for an ``__init__.py``. For a kernel's
files it is all kernels' tests.
"""

import pathlib
import re
import sys
from collections.abc import Iterable

import pytest

PACKAGES = ("gmixout_jax", "pallas_kernels", "experiments")
TESTS = pathlib.Path("tests")
KERNELS = pathlib.Path("pallas_kernels")


def tests_of(path: pathlib.Path) -> list[pathlib.Path]:
  """The test files and doctests of one touched file."""
  if path.name.startswith("test_"):
    return [path]
  if path.parts[0] not in PACKAGES or not path.exists():
    return []
  if path.parent.parent == KERNELS:
    return [path, *sorted((TESTS / KERNELS).glob("test_*.py"))]
  sources = [
    file
    for package in PACKAGES
    for file in sorted(pathlib.Path(package).rglob("*.py"))
    if file.name != "__init__.py"
  ]
  tests = [
    file
    for package in PACKAGES
    for file in sorted((TESTS / package).rglob("test_*.py"))
  ]
  level = [path] if path in sources else []
  seen = {path}
  while level:
    found = {test for file in level for test in _own(file, tests)}
    if found:
      return [path, *sorted(found)]
    level = list(
      {user for file in level for user in _using(file, sources)} - seen
    )
    seen.update(level)
  folder = TESTS / path.parent
  found = [*folder.glob("test_*.py")]
  return [path, *sorted(found or folder.parent.glob(f"test_{folder.name}*.py"))]


def _own(
  path: pathlib.Path, tests: Iterable[pathlib.Path]
) -> list[pathlib.Path]:
  """The tests that are called like a file; else those that use it."""
  found = sorted((TESTS / path.parent).glob(f"test_{path.stem}*.py"))
  return found or _using(path, tests)


def _using(
  path: pathlib.Path, files: Iterable[pathlib.Path]
) -> list[pathlib.Path]:
  """Of some files, those that import a module, or name it or its file."""
  parts = path.with_suffix("").parts
  if parts[-1] == "__init__":
    parts = parts[:-1]
  patterns = [rf"\b{re.escape('.'.join(parts))}\b", re.escape(str(path))]
  if len(parts) > 1:  # from package import module, or (one, module)
    package = re.escape(".".join(parts[:-1]))
    names = rf"(?:\([^)]*|.*)\b{parts[-1]}\b"
    patterns.append(rf"^ *from {package} import {names}")
  pattern = re.compile("|".join(patterns), re.MULTILINE)
  return [file for file in files if pattern.search(file.read_text())]


def main(touched: list[str]) -> int:
  """Returns the exit status of pytest; 0 if there is nothing to run."""
  chosen = {
    str(test): None
    for path in touched
    for test in tests_of(pathlib.Path(path))
    if not test.name.endswith("triton.py")  # needs an optional extra
  }
  if not chosen:
    return 0
  status = pytest.main(["-q", *chosen])
  return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else int(status)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
