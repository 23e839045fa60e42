"""A task that was opened, for all runs of a diagnostic."""

import dataclasses
from collections.abc import Mapping

import jax

from experiments.data.batches import stream
from experiments.data.images import ImageSet
from experiments.data.split import Split
from experiments.diagnostics import members
from experiments.methods.method import Method
from experiments.models.classifier import Classifier
from experiments.tasks.task import Opened, Task
from experiments.training import compilation_cache, runs


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
  """What is measured on.

  Terms are means over images, so all seeds see the same ones: the seed that the
  task is opened with cuts off the validation images and draws what else is
  random of the task, whatever runs follow. A run's own seed is of the order of
  the images, of their augmentation and of the method.

  Attributes:
    opened: The task.
    ood: The OOD images, by name; at least one set.
  """

  opened: Opened
  ood: Mapping[str, Split | ImageSet]

  @classmethod
  def of(cls, task: Task, seed: int) -> "Subject":
    """Opens a task, and prints what it has to say.

    Raises:
      ValueError: If it has no OOD images, one set of them is called "id", or
        the images of a step cannot be cut into micro-batches; or as
        `Task.open`.
    """
    compilation_cache.keep()
    opened = task.open(seed)
    for note in opened.notes:
      print(note)
    if not opened.ood:
      raise ValueError(
        "what is measured is also measured out of distribution: --ood must name"
        " such images, or --data a set that has some."
      )
    if "id" in opened.ood:
      raise ValueError("--ood id=... must have another name than 'id'.")
    opened.recipe.check_batch(opened.batch_size)
    return cls(opened, opened.ood)

  @property
  def id(self) -> Split | ImageSet:
    """The ID images: those that no choice has seen, if there are any."""
    test = self.opened.test
    return self.opened.source.validation if test is None else test

  def prepared(self, method: Method, seed: int) -> Classifier:
    """The model that all runs of a method start from, with a head."""
    opened = self.opened
    return method.prepare(opened.model, opened.source, jax.random.key(seed))

  def collect(
    self,
    method: Method,
    prepared: Classifier,
    seed: int,
    *,
    every: int,
    members_per_run: int,
    held: bool = False,
  ) -> members.Trajectory:
    """A run of the task's length.

    Args:
      method: What to train.
      prepared: From `prepared`.
      seed: Of the run.
      every: See `members.collect`.
      members_per_run: How many members to keep.
      held: Whether the learning rate stays at its peak.
    """
    opened = self.opened
    dataset = runs.batches_of(opened, seed=seed)
    schedule = opened.recipe.schedule_of(opened.steps, opened.warmup)
    return members.collect(
      method,
      prepared,
      lambda start: stream(dataset, start, opened.steps),
      steps=opened.steps,
      every=every,
      members=members_per_run,
      key=jax.random.key(seed),
      schedule=dataclasses.replace(schedule, constant=held),
      recipe=opened.recipe,
      skip_nonfinite=opened.skip_nonfinite,
    )
