"""A study's setting whose model compiles in no time, and its lines."""

import dataclasses

from experiments.methods.full_finetuning import FullFinetuning
from experiments.study import choose
from experiments.study.tasks import Loaded
from experiments.training.runs import Task
from tests.experiments import tiny

FULL = FullFinetuning(learning_rate=1e-3)


@dataclasses.dataclass(frozen=True)
class Tiny:
  """A classifier of a few weights on images of three shades."""

  name: str = "tiny"

  def load(self, seed):
    source = tiny.source()
    task = Task(tiny.classifier(), source, steps=2, batch_size=4, seed=seed)
    return Loaded(task, source.validation, {"away": source.train})

  def described(self):
    return {"data": self.name}


TINY = Tiny()


def line(cell, top1, brier=0.5):
  """What a result file would hold of a cell."""
  config, seed = choose.identity(cell)
  found = {"details": {"id": {"top1": top1, "brier": brier}}}
  return {"config": config, "seed": seed, "metrics": found}
