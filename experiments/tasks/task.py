"""A task that methods are compared on, and the same opened for one seed."""

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
  """A task opened for one seed. Methods see the model and the source only.

  Attributes:
    model: The pretrained model, with a zero-shot head, a fitted or a blank one.
    source: The images to train on, and the ID validation images to choose by.
    steps: Optimizer steps of a run.
    batch_size: Images per step.
    warmup: The fraction of warm-up steps.
    augment: The augmentation, see `experiments.data.augmentation`.
    balanced: Whether a batch has equally many images of each domain; the
      source's images are then an `ImageSet`.
    seed: The PRNG seed of the first run of every method.
    skip_nonfinite: How many steps in a row a run may skip; see `loop.fit`.
    recipe: Settings of a step that do not belong to the method.
    test: ID test images, never used to choose; None if ID accuracy is on the
      validation images.
    ood: The OOD images, by name, never used to choose.
    train_counts: How many training images each class has, if accuracy is also
      reported by that.
    headline: From the metrics to the headline numbers, if these are others than
      ID and mean OOD accuracy.
    zero_shot: Whether the head is a zero-shot head, and no linear probe.
    view: How an image is resized and cropped; None for images in memory.
    notes: Messages: what was left out or assumed.
    outcomes: Finished checkpoints in place of runs, if nothing is trained; see
      `experiments.harness.measured.Outcomes`.
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
  """What methods are compared on: images, a pretrained model, a length."""

  @property
  def config(self) -> Record:
    """All that results depend on besides method and seed; JSON.

    Default values are left out, so that lines compare with older ones. Nothing
    is read for it except a fingerprint of a user's own files.
    """
    ...

  def open(self, seed: int) -> Opened:
    """Opens the images and loads the model.

    Args:
      seed: The PRNG seed; it splits off the validation images.

    Raises:
      FileNotFoundError: If images or weights are not there.
      ValueError: If they do not fit.
    """
    ...
