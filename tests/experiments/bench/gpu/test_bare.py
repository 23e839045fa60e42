"""Tests that `make gpu` needs no package that a machine with a GPU may lack.

Two kinds are refused. What is nowhere on such a machine is refused to all; what
JAX and Flax need themselves is refused to this project's files.
"""

import pathlib
import re
import subprocess
import sys

import pytest

from experiments.bench.gpu import gpu_tests

ROOT = pathlib.Path(__file__).parents[4]

REFUSING = """
import builtins, os, sys

ABSENT = (
  "PIL cv2 equinox grain haiku hypothesis matplotlib nevergrad sklearn"
  " simplejpeg submitit tensorboardX tensorflow_datasets tokenizers torch tyro"
)
sys.modules.update(dict.fromkeys(ABSENT.split()))
NOT_OURS = {"rich", "scipy"}
OURS = {"experiments", "gmixout_jax", "pallas_kernels", "tests"}
found = builtins.__import__

def importing(name, globals=None, *rest, **named):
  asks = str((globals or {}).get("__name__", "")).split(".")[0]
  if asks in OURS and name.split(".")[0] in NOT_OURS:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
  return found(name, globals, *rest, **named)

builtins.__import__ = importing
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
"""


def refusing(script, *arguments):
  """What a script prints where these packages are missing."""
  done = subprocess.run(
    [sys.executable, "-c", REFUSING + script, *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def node_ids(text):
  return set(re.findall(r"^\S+::.*$", text, re.MULTILINE))


def test_it_imports_only_declared_packages():
  printed = refusing("""
from experiments.bench import figures
from experiments.bench.gpu import __main__, machine, measure

figures.report("Title", {"one": 2.5, "b_bytes": 1e6}, {"one": 2}, None)
""")
  _, *lines = printed.splitlines()
  assert lines == [
    "figure       value  target",
    "one            2.5     ≤ 2  missed",
    "b_bytes  1,000,000",
  ]


def test_the_hook_refuses():
  printed = refusing("""
from experiments.bench import console
assert console._rich() is None
import rich, scipy
for name in ("experiments.sweep", "experiments.bench.__main__"):
  try:
    __import__(name)
  except ImportError as error:
    print(error.name)
""")
  assert printed == "tyro\ntyro\n"


@pytest.mark.slow
def test_it_runs_every_test_that_is_marked(tmp_path):
  """Those of the whole folder, from files that need no other package."""
  collecting = """
import pytest
sys.exit(pytest.main(
  ["--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider", *sys.argv[1:]]
))
"""
  names = [str(path.relative_to(ROOT)) for path in gpu_tests.files()]
  selected = node_ids(refusing(collecting, *names))
  # Who names the marker, or imports what sets it.
  marked = re.compile(r"\bmark\.gpu\b|import \(?[\w, \n]*\bgpu\b|kernels\.gpu")
  holding = {
    str(path.relative_to(ROOT))
    for path in (ROOT / "tests").rglob("test_*.py")
    if marked.search(path.read_text())
  }
  assert holding == set(names)
  assert len(selected) > 100
  run = {one[-1] for one in gpu_tests.commands().values()}
  assert run == set(names)


def test_counts_are_of_results_alone():
  """And not of what pytest says at its end, or a test of its name."""
  output = """
tests/a.py::test_PASSED[x y] PASSED                                     [ 10%]
tests/a.py::test_two[shape1-triton] SKIPPED (jax-triton is missing)     [ 20%]
tests/a.py::test_three FAILED                                           [ 30%]
tests/a.py::test_four ERROR                                             [ 40%]
tests/a.py::test_five
SKIPPED [1] tests/a.py:3: jax-triton is missing
FAILED tests/a.py::test_three - AssertionError: PASSED
"""
  assert gpu_tests.counts([output]) == {
    "passed": 1.0,
    "failed": 2.0,
    "skipped": 1.0,
  }
