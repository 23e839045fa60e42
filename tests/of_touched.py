"""Runs the tests of some files: their own, and the examples in them.

  python tests/of_touched.py gmixout_jax/masks.py experiments/train.py

Tests mirror the packages: those of ``gmixout_jax/masks.py`` are
``tests/gmixout_jax/test_masks*.py``.
"""

import pathlib
import sys

import pytest

PACKAGES = ("gmixout_jax", "pallas_kernels", "experiments")


def tests_of(path: pathlib.Path) -> list[pathlib.Path]:
  """The test files and doctests of one touched file."""
  if path.name.startswith("test_"):
    return [path]
  if path.parts[0] not in PACKAGES or not path.exists():
    return []
  folder = pathlib.Path("tests", *path.parts[:-1])
  found = sorted(folder.glob(f"test_{path.stem}*.py"))
  return [path, *found]


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
