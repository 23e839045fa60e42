"""Runs the scripts in `examples/` and reads what they print."""

import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = sorted((pathlib.Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_gmixout_learns_the_new_and_keeps_more_of_the_old(script):
  done = subprocess.run(
    [sys.executable, script],
    capture_output=True,
    text=True,
    check=True,
  )
  rows = re.findall(r"^(\S+) +([\d.]+)% +([\d.]+)%$", done.stdout, re.M)
  new, old = (
    {name: float(columns[i]) for name, *columns in rows} for i in (0, 1)
  )
  assert new["pretrained"] < 50 < old["pretrained"]
  assert new["GMixout"] > 50 < new["fine-tuned"]
  assert old["GMixout"] > old["fine-tuned"]
