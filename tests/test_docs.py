"""Tests that the documentation builds, and that what it shows runs."""

import dataclasses
import html
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from gmixout_jax._core.settings import Settings
from tests.gmixout_jax.test_public import MODULES

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
SHOWING = [page for page in PAGES if "```python" in page.read_text()]


@pytest.mark.parametrize(
  "page", SHOWING, ids=lambda page: str(page.relative_to(ROOT / "docs"))
)
def test_the_code_of_a_page_runs_and_prints_what_is_shown(
  page, monkeypatch, capsys
):
  monkeypatch.chdir(ROOT)
  text, names = page.read_text(), {}
  for found in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
    exec(compile(found[1], str(page), "exec"), names)
  shown = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
  assert capsys.readouterr().out == "".join(shown)


def test_it_builds_without_a_warning(tmp_path):
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
  done = subprocess.run(
    [*command, "--site-dir", str(tmp_path)],
    cwd=ROOT,
    env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  for page in ("reference/method", "reference/kernels"):
    text = (tmp_path / page / "index.html").read_text()
    assert "<blockquote" not in text  # what >>> is to Markdown
    assert "<math" in text
    assert ".. math::" not in text
    assert ":math:" not in text
    formulas = re.findall(r"<math.*?</math>", text, re.DOTALL)
    shown = " ".join(formulas)
    assert "<mtable" in shown  # of several lines, aligned
    assert "<mi>&</mi>" not in shown
    # A formula ends where its block does: words are no products of letters.
    assert not re.search(r"(<mi>[a-z]</mi>){5}", shown)
  page = (tmp_path / "reference/method/index.html").read_text()
  plain = html.unescape(re.sub(r"<[^>]*>", "", page))
  for setting, own in dataclasses.asdict(Settings()).items():
    default = json.dumps(own) if isinstance(own, str) else repr(own)
    listed = re.findall(rf"^  {setting}: [\w| ]+ = (.*),$", plain, re.MULTILINE)
    assert len([found for found in listed if found == default]) >= 5, setting


def test_every_public_name_is_documented():
  """On a line of its own; functions and classes also with their module."""
  reference = "".join(
    page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md")
  )
  for module in MODULES:
    whole = f"::: {module.__name__}\n" in reference
    for name in module.__all__:
      value = getattr(module, name)
      if inspect.ismodule(value):
        continue
      shown = whole and (inspect.isfunction(value) or inspect.isclass(value))
      listed = f"::: {module.__name__}.{name}\n" in reference
      assert shown or listed, f"{module.__name__}.{name}"
