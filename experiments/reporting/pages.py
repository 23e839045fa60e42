"""Writes the pages of results from published lines: no number is typed.

  python -m experiments.reporting.pages

And experiments/results/equal_id.csv; `experiments.report` draws the pictures.

A page has a source beside it, NAME.md.in: text with expressions in double
braces, each a word and names with bars between them:

  {{paired | TASK | METHOD | OTHER | id}}  what METHOD has more, in points
  {{rule | TASK | methods}}           or another figure of `rule_effect`
  {{difference | TASK | METHOD}}      OOD at equal ID, from full fine-tuning's;
                                      * where p < 0.05
  {{cost | TASK | METHOD | COST}}     a ratio to full fine-tuning's
  {{rate | TASK | METHOD}}            the learning rate that was chosen
  {{accuracies | TASK | NAME | ...}}  one table of several tasks
  {{demo | METHOD | id}}              ID accuracy, mean ± half its interval, of
                                      the demo's lines
  {{bench | NAME | FIGURE}}           of bench_NAME_cpu.json, with two digits
                                      after the point; | MB, | 1, | 3: in
                                      megabytes, or with so many digits
  {{bvcl}}                            the table of bvcl's lines
  {{bvcl | METHOD | TERM}}            one cell of it
  {{ablations | TASK | METHOD | ...}} the table of ablations, and METHODs below
  {{bound | STEPS | K}}               how far GMixout's anchor can come
  {{bounds | rescale}}                the table of k and λ; | no rescale
  {{hours | STEPS | BATCH}}           of a GPU, for a run of ViT-B/16

Tasks and methods are called as the report calls them. What is not there is an
error, so a page cannot outlive its lines; a test renders all pages again.
"""

import pathlib
import re
import sys

from experiments.command_line import typed_errors
from experiments.reporting.facts import RESULTS, ROOT, Facts

PAGES = ROOT / "docs"
EQUAL_ID = RESULTS / "equal_id.csv"

_EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def rendered(source: str, facts: Facts) -> str:
  """A page from its source.

  Raises:
    LookupError: If it names what is not there.
  """
  return _EXPRESSION.sub(lambda found: facts.text(found[1]), source)


def sources() -> dict[pathlib.Path, str]:
  """The sources by the page that they make."""
  return {
    file.with_suffix(""): file.read_text(encoding="utf-8")
    for file in sorted(PAGES.rglob("*.md.in"))
  }


def published() -> Facts:
  """Of all lines of the study and of the demo."""
  return Facts(
    sorted(RESULTS.glob("curves_*.jsonl")), RESULTS / "demo_cpu.jsonl"
  )


def main() -> None:
  """Writes all pages."""
  with typed_errors():
    facts = published()
    for page, source in sources().items():
      page.write_text(rendered(source, facts), encoding="utf-8")
      print(f"wrote {page.relative_to(ROOT)}")
    EQUAL_ID.write_text(facts.equal_id, encoding="utf-8")
    print(f"wrote {EQUAL_ID.relative_to(ROOT)}")


if __name__ == "__main__":
  sys.exit(main())
