"""What published lines and benchmarks say, word by word: see `pages`."""

import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import gmixout_jax as gx
from experiments import metrics
from experiments.reporting import (
  cost_figure,
  diagnosed,
  document,
  kinds,
  records,
  rule_effect,
  sections,
  settings_tables,
)
from experiments.reporting.document import Table
from experiments.reporting.entries import Entry, by_task, group
from experiments.reporting.equal_id import Comparison, to_csv
from experiments.reporting.knobs import RATE, setting

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"

GPU_FLOPS = 1e14
"""Floating-point operations per second that `hours` counts on."""

BATCH_OF_FLOPS = 8
"""Images of a step whose operations `bench flops` counts by default."""


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
    self._demo = group(kinds.read([demo]).runs)
    self._tasks, self._chosen = found.tasks, found.chosen
    # Looked at once a figure of it, of which a page has many.
    self._effect = functools.cache(
      lambda task: rule_effect.effect(self._tasks[task])
    )
    self._comparisons = {each.task: each for each in found.comparisons}
    self._words: Mapping[str, Callable[..., str]] = {
      "paired": self.paired,
      "rule": self.rule,
      "difference": self.difference,
      "cost": self.cost,
      "rate": self.rate,
      "accuracies": self.accuracies,
      "demo": self.demo,
      "bench": bench,
      "bvcl": bvcl,
      "ablations": self.ablations,
      "bound": bound,
      "bounds": bounds,
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

  def demo(self, method: str, metric: str) -> str:
    """A mean in percent ± half its 95 % interval, of the demo."""
    return _named(self._demo, method, "the demo").percent(metric)

  def difference(self, task: str, method: str) -> str:
    """From full fine-tuning at equal ID score, in points, with its sign.

    A star is behind what is significant, p < 0.05. A method that is nowhere at
    the scores that are compared has "–".
    """
    curves = {e.curve.label: e for e in self._comparison(task).overall}
    if (found := curves.get(method)) is None:
      self._entry(task, method)  # which refuses what is no method of the task
      return "–"
    star = "*" if found.p < 0.05 else ""
    return found.paired.difference.points() + star

  def paired(self, task: str, method: str, reference: str, metric: str) -> str:
    """From another method, each at its chosen rate, in points, by seed."""
    own, other = (self._entry(task, each) for each in (method, reference))
    found = metrics.paired(own.values(metric), other.values(metric))
    return found.difference.points()

  def rule(self, task: str, what: str) -> str:
    """A figure of `rule_effect.Effect`, accuracies in percent."""
    self._task(task)  # which sees whether there is such a task
    value = _found(
      self._effect(task)._asdict(), what, f"the rule's effect has no {what!r}"
    )
    return str(value) if isinstance(value, int) else f"{100 * value:.1f}"

  def cost(self, task: str, method: str, name: str) -> str:
    """A cost as a ratio to full fine-tuning's."""
    label = self._entry(task, method).label
    return f"{cost_figure.ratios(self._task(task))[label][name]:.2f}"

  def rate(self, task: str, method: str) -> str:
    """The learning rate."""
    return f"{setting(self._entry(task, method).config['method'], RATE):g}"

  def accuracies(self, *tasks_and_names: str) -> str:
    """One table of ID and OOD accuracy on several tasks, as Markdown.

    Args:
      *tasks_and_names: A task, and what to call it; another, and so on.
    """
    pairs = list(itertools.batched(tasks_and_names, 2))
    header, columns = ["method"], []
    for task, name in pairs:
      header += [f"{name}: ID", "OOD", "rate"]
      columns.append({entry.label: entry for entry in self._task(task)})
    labels = dict.fromkeys(label for column in columns for label in column)
    rows = [
      [label, *(cell for column in columns for cell in _cells(column, label))]
      for label in labels
    ]
    return document.markdown_table(Table("", "", header, rows))

  def ablations(self, task: str, *methods: str) -> str:
    """The table of the published lines of ablations, as Markdown.

    Args:
      task: On which other methods stand below it, at their chosen rates.
      *methods: Those.
    """
    found = _settings("ablations")
    if len(found) != 1:
      raise LookupError(f"ablations are of one task, got {len(found)}.")
    below = [self._entry(task, method) for method in methods]
    table = settings_tables.ablations(found[0], below)
    return document.markdown_table(table)

  def _task(self, task: str) -> Sequence[Entry]:
    return _found(self._chosen, task, f"no task {task!r}")

  def _entry(self, task: str, method: str) -> Entry:
    return _named(self._task(task), method, task)

  def _comparison(self, task: str) -> Comparison:
    return _found(self._comparisons, task, f"no curves on {task!r}")


def _cells(entries: Mapping[str, Entry], label: str) -> tuple[str, str, str]:
  """ID and OOD accuracy and the rate of a method, if it is among them."""
  if (entry := entries.get(label)) is None:
    return "", "", ""
  rate = setting(entry.config["method"], RATE)
  return (
    entry.percent("id"),
    entry.percent("mean_ood"),
    "–" if rate is None else f"{rate:g}",
  )


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
  path = _published(f"bench_{name}_cpu.json")
  figures = json.loads(path.read_text(encoding="utf-8"))
  return _found(figures, figure, f"no {figure!r} in {path.name}")


def bvcl(*names: str) -> str:
  """The table of the published lines of bvcl, or one cell of it.

  Args:
    *names: None for the table; else a method and a term, as it has them.

  Raises:
    LookupError: If there is no such method or term.
  """
  table = _bvcl()
  if not names:
    return document.markdown_table(table)
  method, term = names
  rows = {row[0]: row for row in table.rows}
  row = _found(rows, method, f"no {method!r} in bvcl's lines")
  cells = dict(zip(table.header, row, strict=True))
  return _found(cells, term, f"no {term!r} of {method}")


@functools.cache
def _bvcl() -> Table:
  return diagnosed.summary(records.read(_published("bvcl_digits_cpu.jsonl")))


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


def bounds(rescale: str) -> str:
  """The table of what was measured of k and λ, beside their bound.

  Args:
    rescale: "rescale", or "no rescale".

  Raises:
    LookupError: If it is neither, or there are no such lines.
  """
  choices = {"rescale": True, "no rescale": False}
  wanted = _found(choices, rescale, f"bounds are not of {rescale!r}")
  table = settings_tables.bounds(_settings("bound"), rescale=wanted)
  return document.markdown_table(table)


@functools.cache
def _settings(part: str) -> list[list[Entry]]:
  """The published configurations of a part of settings, task by task."""
  path = _published(f"settings_{part}_cpu.jsonl")
  return list(by_task(kinds.read([path]).runs).values())


def _published(name: str) -> pathlib.Path:
  """A file of results, if it is there."""
  if not (path := RESULTS / name).is_file():
    raise LookupError(f"there is no {path.relative_to(ROOT)}.")
  return path


def hours(steps: str, batch_size: str) -> str:
  """Of full fine-tuning of ViT-B/16 at 224 pixels, at `GPU_FLOPS`."""
  of_an_image = _measured("flops", "full_flops") / BATCH_OF_FLOPS
  work = int(steps) * int(batch_size) * of_an_image
  return f"{work / GPU_FLOPS / 3600:.1f}"
