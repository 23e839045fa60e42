"""What is shown during runs: progress bars and messages."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import rich.console
import rich.progress

from experiments import methods
from experiments.methods import Member
from experiments.reporting import display_names
from experiments.training import watching

_EMPTY: dict[str, Any] = {"loss": "", "seen": ""}
"""Of a row that has neither."""


class Display:
  """A console with rows of progress; silent where another process leads.

  Attributes:
    console: Where everything is shown.
    bar: The rows.
  """

  def __init__(self, console: rich.console.Console):
    self.console = console
    self._noted: set[str] = set()
    self.bar = rich.progress.Progress(
      *rich.progress.Progress.get_default_columns(),
      rich.progress.TextColumn("{task.fields[loss]}{task.fields[seen]}"),
      console=console,
    )

  @contextlib.contextmanager
  def shown(self) -> Iterator["Display"]:
    """Shows the rows while the block lasts."""
    with self.bar:
      yield self

  def say(self, sentence: str) -> None:
    """Shows a sentence above the rows, without reading it as markup."""
    self.console.print(sentence, markup=False, soft_wrap=True)

  def note(self, sentence: str) -> None:
    """Says a sentence, unless it was noted before."""
    if sentence not in self._noted:
      self._noted.add(sentence)
      self.say(sentence)

  @contextlib.contextmanager
  def reading(self, what: str) -> Iterator[None]:
    """A row without an end, while images and weights are read."""
    row = self.bar.add_task(_plain(f"reading {what}"), total=None, **_EMPTY)
    yield
    self.bar.remove_task(row)

  @contextlib.contextmanager
  def predicting(self, total: int) -> Iterator[Callable[[int], None]]:
    """A row of images; yields what is called with how many are done."""
    row = self.bar.add_task("predicting", total=total, **_EMPTY)
    yield lambda done: self.bar.update(row, completed=done)
    self.bar.remove_task(row)

  @contextlib.contextmanager
  def counted(
    self, title: str, total: int, done: int
  ) -> Iterator["ProgressRow"]:
    """A row that counts what has ended."""
    row = ProgressRow(self.bar, title, total)
    row.update(completed=done, visible=True)
    yield row
    row.remove()

  @contextlib.contextmanager
  def running(
    self, title: str, *, steps: int, runs: int
  ) -> Iterator["ProgressRow"]:
    """The row of some runs on a task.

    Args:
      title: Of the task and the seed.
      steps: Of a run.
      runs: How many there are at most.
    """
    row = ProgressRow(self.bar, title, steps * max(runs, 1), steps)
    if not self.console.is_terminal:  # rows that go are never written there
      row.say = self.say
    yield row
    row.remove()


class ProgressRow:
  """A row of progress, and below it that of an evaluation.

  Attributes:
    say: Called with a sentence for each evaluation on the way, if set.
  """

  def __init__(
    self,
    bar: rich.progress.Progress,
    title: str,
    total: int,
    steps: int | None = None,
  ):
    self._bar, self._title, self._steps = bar, title, steps
    self._total = total
    self.say: Callable[[str], None] | None = None
    # Not every method takes steps: a row appears with its first progress.
    add = lambda text: bar.add_task(
      _plain(text), total=total, visible=False, **_EMPTY
    )
    self._row, self._below = add(title), add("evaluating")

  def update(self, **changes: object) -> None:
    """Changes the row, as `rich.progress.Progress.update` does."""
    self._bar.update(self._row, **changes)  # pyright: ignore

  def progress(self, member: Member, step: int, loss: float) -> None:
    """A run has taken a step."""
    # One that goes on does not begin at 0; of several, the steps are counted.
    done = step + 1 if self._total == self._steps else None
    name = display_names.title(methods.name_of(member.method))
    self.update(
      description=_plain(f"{self._title}: {name}"),
      advance=None if done else 1,
      completed=done,
      loss=f"loss {loss:.3f}",
      visible=True,
    )

  def evaluated(
    self, member: Member, taken: int, found: Mapping[str, float]
  ) -> None:
    """A run was evaluated on the way."""
    sentence = watching.sentence(found)
    self.update(seen=sentence)
    if self.say is not None:
      name = display_names.title(methods.name_of(member.method))
      self.say(f"{self._title}: {name}, step {taken}{sentence}")

  def evaluating(self, name: str, done: int, total: int) -> None:
    """An evaluation has come so far."""
    self._bar.update(
      self._below,
      description=_plain(f"evaluating {name}"),
      completed=done,
      total=total,
      visible=done < total,
    )

  def remove(self) -> None:
    """The row goes."""
    self._bar.remove_task(self._row)
    self._bar.remove_task(self._below)


def _plain(text: str) -> str:
  """Text that rich reads no markup in."""
  return text.replace("[", "\\[")
