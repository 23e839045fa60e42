"""Tests that the documentation builds, and that what it shows runs."""

import dataclasses
import html
import importlib.util
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from gmixout_jax._core.settings import Settings
from tests.combinations import tried
from tests.gmixout_jax.test_public import MODULES

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def script(name):
  """A file of `docs/`, which is no package."""
  spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


check_pages, hooks = script("check_pages"), script("hooks")
SHOWING = [page for page in PAGES if "```python" in page.read_text()]


@pytest.mark.parametrize(
  "page",
  # These two compile the most, of what tests of layers and of CLIPs do, too.
  tried(SHOWING, lambda page: page.stem not in ("memory", "clip")),
  ids=lambda page: str(page.relative_to(ROOT / "docs")),
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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  """The built documentation: a warning would have ended it."""
  folder = tmp_path_factory.mktemp("site")
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
  done = subprocess.run(
    [*command, "--site-dir", str(folder)],
    cwd=ROOT,
    env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return folder


@pytest.mark.parametrize("page", ["gmixout_jax", "kernels"])
def test_formulas_and_examples_of_docstrings_are_shown(site, page):
  text = (site / "reference" / page / "index.html").read_text()
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


def test_signatures_list_the_settings(site):
  pages = [page.read_text() for page in (site / "reference").rglob("*.html")]
  plain = html.unescape(re.sub(r"<[^>]*>", "", "\n".join(pages)))
  for setting, own in dataclasses.asdict(Settings()).items():
    default = json.dumps(own) if isinstance(own, str) else repr(own)
    listed = re.findall(rf"^  {setting}: [\w| ]+ = (.*),$", plain, re.MULTILINE)
    assert len([found for found in listed if found == default]) >= 5, setting


@pytest.mark.parametrize(
  ("query", "page"),
  [
    ("augmentation", "guides/input/"),
    ("image folder", "guides/own_images/"),
    ("predict", "guides/own_images/"),
    ("export", "guides/own_images/"),
    ("bfloat16", "guides/memory/"),
  ],
)
def test_search_finds(site, query, page):
  """As the theme searches: all words, of the last of which the beginning."""
  index = json.loads((site / "search" / "search_index.json").read_text())
  assert index["config"]["pipeline"] == [
    "stopWordFilter"
  ]  # takes no word apart
  *whole, last = query.split()
  patterns = [*(rf"\b{word}\b" for word in whole), rf"\b{last}"]
  titled = [
    entry["location"]
    for entry in index["docs"]
    if all(re.search(p, entry["title"], re.IGNORECASE) for p in patterns)
  ]
  assert any(location.startswith(page) for location in titled), titled


def test_links_lead_somewhere_and_nothing_is_fetched(site):
  assert [*check_pages.static_faults(site)] == []


def test_a_link_to_nowhere_is_a_fault(tmp_path):
  (tmp_path / "a").mkdir()
  (tmp_path / "index.html").write_text(
    '<h1 id="top">Page</h1><a href="a/#there">good</a> <a href="b/">page</a>'
    '<a href="a/#gone">place</a> <img src="https://example.org/x.png">'
  )
  (tmp_path / "a" / "index.html").write_text('<p id="there"></p>')
  faults = [*check_pages.static_faults(tmp_path)]
  assert faults == [
    "index.html: fetches https://example.org/x.png",
    "index.html: b/ leads nowhere",
    "index.html: a/#gone is no place on its page",
  ]


@pytest.mark.skipif(not check_pages.browser(), reason="there is no Chromium")
def test_a_browser_sees_what_is_too_wide_too_high_and_too_dark(tmp_path):
  fits = tmp_path / "index.html"
  fits.write_text(
    '<meta name="viewport" content="width=device-width"><article><p>Text</p>'
    '<div style="overflow: auto"><p style="width: 900px">Scrolls</p></div>'
  )
  high = tmp_path / "results" / "high" / "index.html"
  high.parent.mkdir(parents=True)
  high.write_text(
    '<article><p style="width: 900px; color: #eee">Pale</p>'
    '<div style="height: 3100px">'
  )
  found = check_pages.look(tmp_path, check_pages.browser(), seconds=60)
  assert found["heights"]["/results/high/ 1280"] > 3100
  told = {re.sub(r"\d{3,}(?= pix)", "N", fault) for fault in found["faults"]}
  assert {fault for fault in told if ", dark" in fault} == {
    "/results/high/ at 390, dark: is N pixels wide",
    '/results/high/ at 390, dark: <p> "Pale" ends at N pixels',
    '/results/high/ at 390, dark: <p> "Pale" has a contrast of 1.2',
    "/results/high/ at 1280, dark: is N pixels high, more than 3000",
    '/results/high/ at 1280, dark: <p> "Pale" has a contrast of 1.2',
  }


def test_the_repository_is_named_in_one_place():
  project = '[project]\nname = "x"\n'
  assert hooks.repository(project) == {}
  urls = '[project.urls]\nRepository = "https://example.org/some/thing/"\n'
  assert hooks.repository(project + urls) == {
    "repo_url": "https://example.org/some/thing",
    "repo_name": "some/thing",
    "edit_uri": "edit/main/docs/",
  }


def test_the_map_names_what_is_there():
  """Files and folders before two spaces, below the package above them."""
  (tree,) = re.findall(
    r"```\n(.*?)```", (ROOT / "docs" / "map.md").read_text(), re.DOTALL
  )
  package = ""
  for line in tree.splitlines():
    left = re.match(r" *((?:[\w/]+, )*[\w/]+)  ", line)
    if left is None:
      continue  # the line above goes on
    if not line.startswith(" "):
      package = left[1]
      assert (ROOT / package).is_dir(), package
      continue
    for name in left[1].split(", "):
      stem = name.rstrip("/")
      found = [
        *(ROOT / package).rglob(stem),
        *(ROOT / package).rglob(f"{stem}.py"),
      ]
      assert found, f"{package}{name}"


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
