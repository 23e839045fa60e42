"""Tests of the code as a text: which way imports go, and how long files are."""

import ast
import graphlib
import pathlib
import re
import tomllib

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
  """Full names of what a file imports, wherever in it: modules, or in them."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path} imports relatively"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(imported):
  """The file of ours that holds what was imported; None if it is not ours."""
  place = ROOT.joinpath(*imported.split("."))
  for path in (place, place.parent):
    for file in (path.with_suffix(".py"), path / "__init__.py"):
      if file in FILES:
        return file
  return None


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_run_one_way(path):
  package = path.relative_to(ROOT).parts[0]
  packages = {one.split(".")[0] for one in imported(path)}
  assert not {*ABOVE[package], "tests"} & packages


def test_no_files_import_each_other_in_a_circle():
  """Not even for the types: what two files need of each other is a third."""
  files = {file: {file_of(one) for one in imported(file)} for file in FILES}
  graph = {file: found - {None} for file, found in files.items()}
  assert graph[ROOT / "gmixout_jax" / "transform.py"]  # it finds some
  graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize(
  "path", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=name
)
def test_a_file_holds_one_idea(path):
  """Which 400 lines are enough for; and no room for odds and ends."""
  assert len(path.read_text().splitlines()) <= 400
  assert path.stem not in {"utils", "util", "helpers", "common", "misc"}


def test_one_version():
  """In what is built, in what is cited, and in what is told."""
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  version = project["version"]
  cited = (ROOT / "CITATION.cff").read_text()
  (date,) = re.findall(r"^date-released: (\S+)$", cited, re.M)
  assert f"\nversion: {version}\n" in cited
  told = (ROOT / "CHANGELOG.md").read_text()
  headings = re.findall(r"^## (.*)$", told, re.M)
  assert headings[:2] == ["[Unreleased]", f"[{version}] - {date}"]


def test_the_oldest_versions_are_those_that_are_declared():
  """`make test-oldest` tests what `pyproject.toml` promises."""
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  lowest = dict(
    re.match(r"([a-z-]+)>=([\d.]+)", dependency).groups()
    for dependency in project["dependencies"]
  )
  pinned = dict(
    re.findall(
      r"^([a-z-]+)==([\d.]+)$",
      (ROOT / "requirements-oldest.txt").read_text(),
      re.M,
    )
  )
  assert pinned.pop("jaxlib") == pinned["jax"]
  for name, version in pinned.items():
    assert version.removesuffix(".0") == lowest[name].removesuffix(".0"), name
  assert lowest.keys() - pinned.keys() == {"numpy"}  # jax asks for a newer one
