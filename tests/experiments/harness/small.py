"""A task whose model compiles in no time, and where its cells are run."""

import dataclasses
from collections.abc import Callable
from typing import Any

import rich.console

from experiments import methods
from experiments.harness.display import Display
from experiments.harness.places import Places
from experiments.methods.full_finetuning import FullFinetuning
from experiments.tasks.task import Opened
from experiments.training import loop
from tests.experiments import tiny

FULL = FullFinetuning(learning_rate=1e-3)


@dataclasses.dataclass(frozen=True, eq=False)
class Small:
  """A classifier of a few weights on images of three shades.

  Attributes:
    name: Of the data.
    changes: Further fields of `Opened`.
    opened: The seeds that it was opened with.
    meanwhile: Called when it is opened.
  """

  name: str = "small"
  changes: dict[str, Any] = dataclasses.field(default_factory=dict)
  opened: list[int] = dataclasses.field(default_factory=list)
  meanwhile: Callable[[], object] = lambda: None

  @property
  def config(self):
    return {"data": self.name}

  def open(self, seed):
    self.opened.append(seed)
    self.meanwhile()
    source = tiny.source()
    fields = {
      "model": tiny.classifier(),
      "source": source,
      "steps": 2,
      "batch_size": 4,
      "seed": seed,
      "ood": {"away": source.train},
    }
    return Opened(**fields | self.changes)


def display():
  """One that nobody sees."""
  return Display(rich.console.Console(quiet=True))


def places(folder, **changes):
  """A results file in a folder, and what else is asked for."""
  return Places(results=folder / "results.jsonl", **changes)


def noting_fits(monkeypatch):
  """The names of what is trained from now on, in order."""
  fit, seen = loop.fit, []

  def noting(method, *args, **kwargs):
    seen.append(methods.name_of(method))
    return fit(method, *args, **kwargs)

  monkeypatch.setattr(loop, "fit", noting)
  return seen
