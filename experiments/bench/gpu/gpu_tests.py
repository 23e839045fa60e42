"""Which tests need a GPU, and what became of them."""

import collections
import pathlib
import re
import sys
from collections.abc import Iterable

from experiments.bench.gpu.machine import ROOT

TESTS = ROOT / "tests"

_MARKED = re.compile(r"^\s*@(pytest\.mark\.)?gpu\b", re.MULTILINE)
_RESULT = re.compile(r"^\S+::.* (PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE)

# What these tests need beside what a bench does. They are compiled as users
# compile, which the tests of a CPU are not, and share the GPU's memory.
ENVIRONMENT = {
  "JAX_PLATFORMS": "cuda,cpu",
  "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
  "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
  "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


def files() -> list[pathlib.Path]:
  """The files that have tests marked `gpu`.

  No other is collected: others need packages that may be missing.
  """
  return [
    path
    for path in sorted(TESTS.rglob("test_*.py"))
    if _MARKED.search(path.read_text())
  ]


def commands() -> dict[str, list[str]]:
  """A command for each of these files, by a name for it.

  After an illegal access a process can do nothing more with a GPU, so no two
  files share one.
  """
  return {
    path.stem: [
      *(sys.executable, "-m", "pytest", "-m", "gpu", "-v", "--tb=short"),
      # A warning of another package's is no reason to know nothing.
      *("-W", "default", "-p", "no:cacheprovider"),
      str(path.relative_to(ROOT)),
    ]
    for path in files()
  }


def counts(outputs: Iterable[str]) -> dict[str, float]:
  """How many tests passed, failed and were skipped.

  Args:
    outputs: What pytest printed, with ``-v``, of runs that need not have ended.

  Example:
    >>> counts(["t.py::a[x] PASSED [ 50%]", "t.py::b FAILED", "t.py::c"])
    {'passed': 1.0, 'failed': 1.0, 'skipped': 0.0}
  """
  found = collections.Counter(
    result for output in outputs for result in _RESULT.findall(output)
  )
  return {
    "passed": float(found["PASSED"]),
    "failed": float(found["FAILED"] + found["ERROR"]),
    "skipped": float(found["SKIPPED"]),
  }
