"""Tests of the code as a text: which way imports go, and how long files are."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("experiments", "gmixout_jax", "pallas_kernels")
FILES = [
  path
  for package in PACKAGES
  for path in sorted((ROOT / package).rglob("*.py"))
]
ABOVE = {
  "pallas_kernels": {"gmixout_jax", "experiments"},
  "gmixout_jax": {"experiments"},
  "experiments": set(),
}


def name(path):
  return str(path.relative_to(ROOT))


def imported(path):
  """Top-level packages that a file imports, wherever in it."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path} imports relatively"
      yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_run_one_way(path):
  package = path.relative_to(ROOT).parts[0]
  assert not {*ABOVE[package], "tests"} & set(imported(path))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_holds_one_idea(path):
  """Which 400 lines are enough for; and no room for odds and ends."""
  assert len(path.read_text().splitlines()) <= 400
  assert path.stem not in {"utils", "util", "helpers", "common", "misc"}
