"""Flags of both diagnostics: on what to measure, and where lines go."""

import dataclasses
import pathlib
from typing import ClassVar

from experiments.configs import demo
from experiments.diagnostics import FILE
from experiments.reporting import records
from experiments.reporting.records import Record
from experiments.run_options import check_results
from experiments.task_options import TaskOptions
from experiments.tasks.digits import Digits
from experiments.tasks.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
  """What to measure on, as for `train`; the demo's digits by default.

  Attributes:
    out: The file that lines are appended to.
  """

  out: pathlib.Path = FILE
  steps_on_digits: ClassVar[int] = Digits.steps

  @property
  def is_of_digits(self) -> bool:
    """Whether no other images are named."""
    return self.train is None and self.data is None

  def task(self) -> Task:
    """See `TaskOptions`.

    Raises:
      ValueError: Also if flags have no meaning for the digits, or lines cannot
        be appended to `out`.
    """
    check_results(self.out, "out")
    if not self.is_of_digits:
      return super().task()
    steps = self.steps_on_digits if self.steps is None else self.steps
    try:
      (task,) = demo.EXPERIMENT.tasks(dataclasses.replace(self, steps=steps))
    except ValueError as error:
      raise ValueError(
        f"without --train and --data the task is the demo's digits: {error}"
      ) from None
    return task


def described(task: Task) -> Record:
  """What lines say of a task; of the digits, what those published do."""
  config: Record = records.plain(task.config)
  if isinstance(task, Digits) and task.batch_size == Digits.batch_size:
    del config["batch_size"]
  return config
