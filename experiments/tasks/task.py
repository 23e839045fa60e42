"""What methods are compared on, and the same as one seed sees it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from experiments.data.augmentation import Augmentation
from experiments.data.decode import View
from experiments.data.images import ImageSet
from experiments.data.source import Source
from experiments.data.split import Split
from experiments.models.classifier import Classifier
from experiments.reporting.records import Record
from experiments.tasks.recipe import Recipe

Metrics = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Opened:
  """A task as one seed sees it. Methods are shown the model and the source.

  Attributes:
    model: The pretrained model, with a zero-shot head, a fitted or a blank one.
    source: The images to train on, and the ID validation images to choose by.
    steps: Optimizer steps of a run.
    batch_size: Images per step.
    warmup: The share of the steps in which the learning rate rises.
    augment: What is done to training images, see
      `experiments.data.augmentation`.
    balanced: Whether a batch has as many images of one domain as of another;
      the source's images are then an `ImageSet`.
    seed: Of everything random, in the first run of every method.
    skip_nonfinite: How many steps in a row a run may skip; see `loop.fit`.
    recipe: What a step does that is no part of a method.
    test: ID images that no choice has seen; None where ID accuracy is that on
      the validation images.
    ood: The OOD images, by name; no method and no choice ever sees them.
    train_counts: How many training images each class has, where accuracy is
      also told by that.
    headline: From the metrics to the numbers that the task is about, if these
      are others than ID and mean OOD accuracy.
    zero_shot: Whether the head was made without images; that of a linear probe
      was not.
    view: What is seen of an image; None of images that are in memory.
    notes: Sentences for people: what was left out, or taken for granted.
    outcomes: Finished checkpoints in the place of runs, where nothing is
      trained; see `experiments.harness.measured.Outcomes`.
  """

  model: Classifier
  source: Source
  steps: int
  batch_size: int
  warmup: float = 0.1
  augment: Augmentation = "basic"
  balanced: bool = False
  seed: int = 0
  skip_nonfinite: int = 0
  recipe: Recipe = dataclasses.field(default_factory=Recipe)
  test: Split | ImageSet | None = None
  ood: Mapping[str, Split | ImageSet] = dataclasses.field(default_factory=dict)
  train_counts: Any = None
  headline: Callable[[Metrics], dict[str, float]] | None = None
  zero_shot: bool = True
  view: View | None = None
  notes: tuple[str, ...] = ()
  outcomes: Any = None


class Task(Protocol):
  """What methods are compared on: images, a model to start from, a length."""

  @property
  def config(self) -> Record:
    """All that numbers depend on but method and seed; JSON.

    What is as it usually is stays out, so that lines compare with those from
    before it could be anything else. Nothing is read to tell it but, of a
    user's own files, what tells them from others of their name.
    """
    ...

  def open(self, seed: int) -> Opened:
    """Opens the images and loads the model.

    Args:
      seed: Of everything random; it cuts off the validation images.

    Raises:
      FileNotFoundError: If images or weights are not there.
      ValueError: If they do not fit.
    """
    ...
