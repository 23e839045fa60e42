"""Writes the pages of results from published lines: no number is typed.

  python -m experiments.reporting.pages

And experiments/results/equal_id.csv; `experiments.report` draws the pictures.

A page has a source beside it, NAME.md.in: text with expressions in double
braces, each a word and names with bars between them:

  {{accuracy | TASK | METHOD | id}}   ID accuracy, mean ± half its interval
  {{difference | TASK | METHOD}}      OOD at equal ID, from full fine-tuning's
  {{p | TASK | METHOD}}               its p, corrected for the task's methods
  {{cost | TASK | METHOD | COST}}     a ratio to full fine-tuning's
  {{rate | TASK | METHOD}}            the learning rate that was chosen
  {{table | TASK | accuracy}}         or rates, equal_id, cost: a whole table
  {{lines}}                           how many lines all this is from
  {{demo | METHOD | id}}              as accuracy, of the demo's own lines
  {{bench | NAME | FIGURE}}           of bench_NAME_cpu.json, with two digits
                                      after the point; | MB, | 1, | 3: in
                                      megabytes, or with so many digits
  {{bvcl}}                            the table of bvcl's lines
  {{bvcl | METHOD | TERM}}            one cell of it
  {{bound | STEPS | K}}               how far GMixout's anchor can come
  {{hours | STEPS | BATCH}}           of a GPU, for a run of ViT-B/16

Tasks and methods are called as the report calls them. What is not there is an
error, so a page cannot outlive its lines; a test renders all pages again.
"""

import json
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import gmixout_jax as gx
from experiments.command_line import typed_errors
from experiments.reporting import (
  cost_figure,
  diagnosed,
  document,
  kinds,
  rates_table,
  records,
  sections,
)
from experiments.reporting.entries import Entry, group
from experiments.reporting.equal_id import Comparison, Overall, to_csv
from experiments.reporting.knobs import RATE, setting

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
PAGES = ROOT / "docs"
EQUAL_ID = RESULTS / "equal_id.csv"

GPU_FLOPS = 1e14
"""Floating-point operations per second that `hours` counts on."""

BATCH_OF_FLOPS = 8
"""Images of a step whose operations `bench flops` counts by default."""

_EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


class Facts:
  """What published lines say, by the names of tasks and methods."""

  def __init__(self, files: Sequence[pathlib.Path], demo: pathlib.Path):
    """Reads result files.

    Args:
      files: Of the study.
      demo: Of the demo.

    Raises:
      ValueError: If they hold no runs.
    """
    runs = kinds.read(files).runs
    found = sections.analysed(runs, "brier")
    self.count = len(runs)
    self._demo = group(kinds.read([demo]).runs)
    self._tasks, self._chosen = found.tasks, found.chosen
    self._comparisons = {each.task: each for each in found.comparisons}
    self._words: Mapping[str, Callable[..., str]] = {
      "accuracy": self.accuracy,
      "difference": self.difference,
      "p": self.p,
      "cost": self.cost,
      "rate": self.rate,
      "table": self.table,
      "lines": lambda: str(self.count),
      "demo": self.demo,
      "bench": bench,
      "bvcl": bvcl,
      "bound": bound,
      "hours": hours,
    }

  @property
  def equal_id(self) -> str:
    """OOD accuracy at equal ID score on all tasks, see `equal_id.to_csv`."""
    return to_csv(list(self._comparisons.values()))

  def text(self, expression: str) -> str:
    """The text of an expression.

    Raises:
      LookupError: If it names something that is not there.
    """
    word, *names = (part.strip() for part in expression.split("|"))
    if word not in self._words:
      raise LookupError(f"{word!r} is none of {', '.join(self._words)}.")
    return self._words[word](*names)

  def accuracy(self, task: str, method: str, metric: str) -> str:
    """A mean in percent ± half its 95 % interval."""
    return self._entry(task, method).percent(metric)

  def demo(self, method: str, metric: str) -> str:
    """Likewise, of the demo."""
    return _named(self._demo, method, "the demo").percent(metric)

  def difference(self, task: str, method: str) -> str:
    """From full fine-tuning at equal ID score, in points, with its sign."""
    found = self._overall(task, method).paired.difference
    text = found.percent()
    return text if text.startswith("-") else f"+{text}"

  def p(self, task: str, method: str) -> str:
    """The corrected p of that difference."""
    value = self._overall(task, method).p
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"

  def cost(self, task: str, method: str, name: str) -> str:
    """A cost as a ratio to full fine-tuning's."""
    label = self._entry(task, method).label
    return f"{cost_figure.ratios(self._task(task))[label][name]:.2f}"

  def rate(self, task: str, method: str) -> str:
    """The learning rate."""
    return f"{setting(self._entry(task, method).config['method'], RATE):g}"

  def table(self, task: str, name: str) -> str:
    """A table as Markdown, without its heading and note."""
    if name == "accuracy":
      made = document.summary(self._task(task))
    elif name == "cost":
      made = cost_figure.table(self._task(task))
    elif name == "rates":
      self._task(task)  # which sees whether there is such a task
      made = rates_table.table(self._tasks[task])
      if made is None:
        raise LookupError(f"no method ran at several rates on {task!r}.")
    elif name == "equal_id":
      made = sections.equal_id_table(self._comparison(task), "brier")
    else:
      raise LookupError(f"there is no table {name!r}.")
    return document.markdown_table(made)

  def _task(self, task: str) -> Sequence[Entry]:
    return _found(self._chosen, task, f"no task {task!r}")

  def _entry(self, task: str, method: str) -> Entry:
    return _named(self._task(task), method, task)

  def _comparison(self, task: str) -> Comparison:
    return _found(self._comparisons, task, f"no curves on {task!r}")

  def _overall(self, task: str, method: str) -> Overall:
    curves = {e.curve.label: e for e in self._comparison(task).overall}
    return _found(curves, method, f"no curve of {method!r}")


def _named(entries: Sequence[Entry], method: str, where: str) -> Entry:
  labelled = {entry.label: entry for entry in entries}
  return _found(labelled, method, f"no {method!r} in {where}")


def _found[T](known: Mapping[str, T], name: str, lacking: str) -> T:
  """What has a name; else an error says what is lacking, and what is there."""
  if name not in known:
    raise LookupError(f"{lacking}: {', '.join(known)}.")
  return known[name]


def bench(name: str, figure: str, form: str = "2") -> str:
  """A figure that `experiments.bench NAME --json` wrote.

  Args:
    name: Of the benchmark.
    figure: Its name in there.
    form: How many digits after the point, or "MB" for bytes in megabytes.

  Raises:
    LookupError: If there is no such file or figure.
  """
  value = _measured(name, figure)
  return f"{value / 1e6:.0f} MB" if form == "MB" else f"{value:.{int(form)}f}"


def _measured(name: str, figure: str) -> float:
  path = RESULTS / f"bench_{name}_cpu.json"
  if not path.is_file():
    raise LookupError(f"there is no {path.relative_to(ROOT)}.")
  figures = json.loads(path.read_text(encoding="utf-8"))
  return _found(figures, figure, f"no {figure!r} in {path.name}")


def bvcl(*names: str) -> str:
  """The table of the published lines of bvcl, or one cell of it.

  Args:
    *names: None for the table; else a method and a term, as it has them.

  Raises:
    LookupError: If there is no such method or term.
  """
  table = diagnosed.summary(records.read(RESULTS / "bvcl_digits_cpu.jsonl"))
  if not names:
    return document.markdown_table(table)
  method, term = names
  rows = {row[0]: row for row in table.rows}
  row = _found(rows, method, f"no {method!r} in bvcl's lines")
  cells = dict(zip(table.header, row, strict=True))
  return _found(cells, term, f"no {term!r} of {method}")


def bound(steps: str, k: str) -> str:
  """The progress bound of the paper's λ 0.3 and p 0.9, with rescaling.

  Example:
    >>> bound("100", "10")
    '0.52'
  """
  share = gx.gmixout_progress(
    int(steps), resample_every=int(k), anchor_decay=0.3, sparsity=0.9
  )
  return f"{share:.2f}" if share < 0.995 else "> 0.99"


def hours(steps: str, batch_size: str) -> str:
  """Of full fine-tuning of ViT-B/16 at 224 pixels, at `GPU_FLOPS`."""
  of_an_image = _measured("flops", "full_flops") / BATCH_OF_FLOPS
  work = int(steps) * int(batch_size) * of_an_image
  return f"{work / GPU_FLOPS / 3600:.1f}"


def rendered(source: str, facts: Facts) -> str:
  """A page from its source.

  Raises:
    LookupError: If it names what is not there.
  """
  return _EXPRESSION.sub(lambda found: facts.text(found[1]), source)


def sources(folder: pathlib.Path = PAGES) -> dict[pathlib.Path, str]:
  """The sources by the page that they make."""
  return {
    file.with_suffix(""): file.read_text(encoding="utf-8")
    for file in sorted(folder.rglob("*.md.in"))
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
