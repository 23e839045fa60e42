"""A paper's experiment: tasks, the methods to compare on them, and seeds.

Each file in `experiments.configs` makes one. Sets are opened, not read: images
are decoded as they are asked for.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from experiments.data.decode import View
from experiments.methods import Method
from experiments.models import backbones
from experiments.reporting.records import Record
from experiments.tasks.image_task import ImageTask, Sets, Setup
from experiments.tasks.task import Metrics
from gmixout_jax import clip

ONLY = "all"
"""What the case of an experiment that has but one is called."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
  """An experiment, but for where its files lie.

  Attributes:
    open: From the folder of the data, the view, a case and the seed to the sets
      of that case.
    methods: To compare, with their hyperparameters.
    batch_size: Images per step.
    epochs: The length of a run; or else `steps`.
    steps: Optimizer steps of a run.
    sizes: From the folder of the data and a case to its own batch size and
      steps, where the case decides.
    cases: From the folder of the data to the names of the tasks: one for each
      domain left out, or each training-set size.
    headline: From the metrics of `models.evaluation` to the headline numbers,
      if these are others than ID and mean OOD accuracy.
    long_tail: Whether accuracy is also reported by the number of training
      images of the classes.
    templates: Prompts of a CLIP.
    use_head: Whether to start from the head in the backbone's files.
    combines: Whether it trains nothing and combines finished checkpoints.
    view: How an image is resized and cropped.
    warmup: The fraction of warm-up steps.
    seeds: PRNG seeds.
    probe_images: From how many training images, class by class, a blank head is
      fitted. All of ImageNet's would take days: scikit-learn's solver on one
      thread needs a minute and more per iteration.
    remat: Recompute each block in the backward pass, to save memory.

  Raises:
    ValueError: Unless there is one of `epochs` and `steps`, or the experiment
      only combines.
  """

  open: Callable[[pathlib.Path, View, str, int], Sets]
  methods: tuple[Method, ...]
  batch_size: int = 1
  epochs: float | None = None
  steps: int | None = None
  sizes: Callable[[pathlib.Path, str], tuple[int, int]] | None = None
  cases: Callable[[pathlib.Path], tuple[str, ...]] = lambda root: (ONLY,)
  headline: Callable[[Metrics], dict[str, float]] | None = None
  long_tail: bool = False
  templates: tuple[str, ...] = clip.PHOTO_TEMPLATES
  use_head: backbones.UseHead = "named"
  combines: bool = False
  view: View = dataclasses.field(default_factory=lambda: View(224, fit="crop"))
  warmup: float = 0.1
  seeds: tuple[int, ...] = (0, 1, 2)
  probe_images: int = 20_000
  remat: bool = False

  def __post_init__(self):
    lengths = sum(value is not None for value in (self.epochs, self.steps))
    if lengths != (0 if self.combines else 1):
      raise ValueError(
        "an experiment that trains has either epochs or steps, another one"
        f" neither; got epochs={self.epochs} and steps={self.steps}."
      )

  def setup(self, root: pathlib.Path, case: str) -> dict[str, Any]:
    """The fields of `Setup` that are the experiment's own."""
    batch_size, steps = self.batch_size, self.steps
    if self.sizes is not None:
      batch_size, steps = self.sizes(root, case)
    return {
      "image_size": self.view.size,
      "batch_size": batch_size,
      "steps": steps,
      "epochs": self.epochs,
      "warmup": self.warmup,
      "remat": self.remat,
      "templates": self.templates,
      "use_head": self.use_head,
      "probe_images": self.probe_images,
    }

  @property
  def headline_of(self) -> Callable[[Metrics], dict[str, float]]:
    """From the metrics to the numbers that it is about."""
    return self.headline or _headline

  def task(
    self, name: str, root: pathlib.Path, case: str, setup: Setup
  ) -> ImageTask:
    """One case of it.

    Args:
      name: Of the experiment.
      root: The folder of its data.
      case: One of `cases`.
      setup: With the fields of `setup`, where nothing else was asked for.
    """
    return ImageTask(
      ExperimentImages(self, name, root, case),
      setup,
      headline=self.headline_of,
      long_tail=self.long_tail,
    )


def _headline(metrics: Metrics) -> dict[str, float]:
  """ID accuracy, that on each OOD set, and the mean over these."""
  mean = {"mean OOD": metrics["mean_ood"]} if metrics["ood"] else {}
  return {"ID": metrics["id"], **metrics["ood"], **mean}


@dataclasses.dataclass(frozen=True, eq=False)
class ExperimentImages:
  """The images of one case of an experiment.

  Attributes:
    experiment: Whose case it is.
    name: Of the experiment.
    root: The folder of its data.
    case: Which.
  """

  experiment: Experiment
  name: str
  root: pathlib.Path
  case: str

  @property
  def view(self) -> View:
    """See `Images`: the experiment's."""
    return self.experiment.view

  @property
  def title(self) -> str:
    """Of experiment and case."""
    return self.name if self.case == ONLY else f"{self.name}/{self.case}"

  def described(self, image_size: int, batch_size: int) -> Record:
    """See `Images`; the experiment says which images these are."""
    return {
      "data": self.title,
      "image_size": image_size,
      "batch_size": batch_size,
    }

  def open(self, view: View, seed: int) -> Sets:
    """See `Images`."""
    return self.experiment.open(self.root, view, self.case, seed)
