"""Tests `bench/gpu/children.py` with commands that crash, hang and fork."""

import os
import sys
import textwrap

from experiments.bench.gpu import children
from tests.experiments.bench.gpu import processes

HANGS = "import time; print('begun', flush=True); time.sleep(600)"
CRASHES = "import os; print('begun', flush=True); os.abort()"
RAISES = "print('begun'); raise SystemExit(3)"


def run(tmp_path, seconds=60.0, **scripts):
  return children.run(
    {name: [sys.executable, "-c", text] for name, text in scripts.items()},
    seconds=seconds,
    folder=tmp_path,
    cwd=tmp_path,
    env=os.environ,
  )


def test_outcomes_of_commands(tmp_path):
  scripts = {"hangs": HANGS, "crashes": CRASHES, "raises": RAISES}
  found = run(tmp_path, 3, **scripts, ends="print('begun')")
  assert {name: one.problem(3) for name, one in found.items()} == {
    "hangs": "stopped after 3 s",
    "crashes": "ended by SIGABRT",
    "raises": "ended with status 3",
    "ends": None,
  }
  assert {one.output for one in found.values()} == {"begun\n"}


def test_commands_run_at_the_same_time(tmp_path):
  waits = """
    import pathlib, sys, time
    own, other = {names}
    pathlib.Path(own).touch()
    while not pathlib.Path(other).exists():
      time.sleep(0.01)
  """
  script = lambda *names: textwrap.dedent(waits).format(names=names)
  found = run(tmp_path, one=script("a", "b"), other=script("b", "a"))
  assert [one.status for one in found.values()] == [0, 0]


def test_what_a_command_has_started_ends_with_it(tmp_path):
  forks = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {HANGS!r}])
print(child.pid, flush=True)
child.wait()
"""
  found = run(tmp_path, 2, forks=forks)["forks"]
  assert found.status is None
  assert processes.has_ended(int(found.output.split()[0]))


def test_the_last_lines_are_cut():
  output = "".join(f"{n} {'x' * 1000}\n" for n in range(100))
  lines = children.Outcome(1, output).tail().splitlines()
  assert lines[-1].startswith("99 x")
  assert 5 < len(lines) < 50
  assert max(map(len, lines)) < 1000
