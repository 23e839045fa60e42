"""Teaches MkDocs the little reStructuredText that the docstrings use.

Formulas become MathML, which browsers show without a script, so that the pages
need no network: ``.. math::`` blocks, ``:math:`` roles, and ``$$`` in pages.
Links in backticks become Markdown's, and examples after ``>>>`` code, where
Markdown has quotations. Links in files of the repository that pages include are
made those of the site, and the pictures of the experiments lie beside the pages
that show them.
"""

import pathlib
import re
import tomllib

from latex2mathml.converter import convert
from markdown import Extension
from markdown.preprocessors import Preprocessor
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"

_BLOCK = re.compile(
  r"^(?P<indent> *)\.\. math::(?P<first>.*)\n"
  r"(?P<rest>(?:(?P=indent) +.*\n|\n)*)"
  r"|^\$\$(?P<dollars>(?s:.*?))\$\$",
  re.MULTILINE,
)
_ROLE = re.compile(r":math:`(?P<tex>[^`]*)`")
_DOCTEST = re.compile(
  r"^(?P<indent> *)>>> .*(?:\n(?P=indent) *\S.*)*", re.MULTILINE
)
# Links of the repository, and what they are in the site.
_PLACES = (
  (re.compile(r"\]\((?:\.\./)*docs/"), "]("),
  (re.compile(r"\]\((?:\.\./)+experiments/results/"), "]("),
  (
    re.compile(r"\]\(((?:\.\./)*)\.\./experiments/README\.md"),
    r"](\1experiments.md",
  ),
)
_LINK = re.compile(r"`(?P<text>[^`<]*?)\s*<(?P<url>https?://[^>]*)>`_")


class _Preprocessor(Preprocessor):
  def run(self, lines: list[str]) -> list[str]:
    text = "\n".join(lines) + "\n"
    text = _BLOCK.sub(self._block, text)
    text = _ROLE.sub(lambda found: self._stash(found["tex"], "inline"), text)
    text = _LINK.sub(r"[\g<text>](\g<url>)", text)
    for place, in_the_site in _PLACES:
      text = place.sub(in_the_site, text)
    return text.split("\n")

  def _block(self, found: re.Match) -> str:
    tex = found["dollars"]
    if tex is None:
      tex = found["first"] + "\n" + found["rest"]
    if "&" in tex:
      # Not aligned, which latex2mathml does not know and lets through.
      tex = r"\begin{align*}" + tex + r"\end{align*}"
    return f"\n{self._stash(tex, 'block')}\n"

  def _stash(self, tex: str, display: str) -> str:
    formula = convert(tex.strip(), display=display)
    if display == "block":
      formula = f'<div class="formula">{formula}</div>'
    return self.md.htmlStash.store(formula)


class _Doctests(Preprocessor):
  def run(self, lines: list[str]) -> list[str]:
    def fenced(found: re.Match) -> str:
      indent = found["indent"]
      return f"{indent}```pycon\n{found[0]}\n{indent}```"

    return _DOCTEST.sub(fenced, "\n".join(lines)).split("\n")


class _Extension(Extension):
  def extendMarkdown(self, md):
    # Before fenced code (25), which they become.
    md.preprocessors.register(_Doctests(md), "doctests", 28)
    # After fenced code (25), which is none of its business.
    md.preprocessors.register(_Preprocessor(md), "rest", 22)


def repository(pyproject: str) -> dict[str, str]:
  """MkDocs' settings of the repository, from its address in pyproject.toml.

  Args:
    pyproject: The text of that file. Without ``Repository`` in its table
      ``project.urls`` pages link to no repository, and to no file to edit.

  Returns:
    Values of MkDocs' configuration.
  """
  urls = tomllib.loads(pyproject)["project"].get("urls", {})
  address = urls.get("Repository", "").rstrip("/")
  if not address:
    return {}
  return {
    "repo_url": address,
    "repo_name": "/".join(address.split("/")[-2:]),
    "edit_uri": "edit/main/docs/",
  }


def on_config(config):
  """Called by MkDocs; pages and docstrings share these extensions."""
  config.markdown_extensions.append(_Extension())
  config.update(repository((ROOT / "pyproject.toml").read_text()))


def on_files(files, config):
  """Called by MkDocs; the pages of results lie in `results`, too."""
  for picture in sorted(RESULTS.glob("*.png")):
    name = f"results/{picture.name}"
    files.append(File.generated(config, name, abs_src_path=str(picture)))
  return files
