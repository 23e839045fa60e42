"""What an experiment is: data on disk, methods to compare, and how long.

One config (`experiments.configs`) makes one of these; `experiments.run` runs
any. Sets are opened, not read: images are decoded as they are asked for.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.data.decode import View
from experiments.data.images import ImageSet
from experiments.data.source import Source
from experiments.methods import Method
from gmixout_jax import clip

Metrics = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
  """The sets of one case of an experiment.

  Attributes:
    source: What a method may see.
    targets: Shifted sets, by name; perhaps none.
    test: Images of the source's distribution that no choice sees; None where
      the protocol reports on the validation images.
    words: What the classes are called in prompts, asked of a CLIP only; "_" is
      read as a space.
    balanced: Whether a batch has as many images of one domain as of another.
    batch_size: If the case decides, as where it is so many per domain.
    steps: If the case decides.
  """

  source: Source
  targets: Mapping[str, ImageSet]
  words: Callable[[], Sequence[str]]
  test: ImageSet | None = None
  balanced: bool = False
  batch_size: int | None = None
  steps: int | None = None


def accuracies(metrics: Metrics) -> dict[str, float]:
  """Accuracy at home, on each target, and the mean over targets."""
  mean = {"mean OOD": metrics["mean_ood"]} if metrics["ood"] else {}
  return {"ID": metrics["id"], **metrics["ood"], **mean}


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
    cases: From the folder of the data to the names of what is trained on apart:
      a domain left out, a training-set size.
    headline: From the metrics of `experiments.evaluate` to the numbers that the
      experiment is about; shown as a table, and in the line of results.
    long_tail: Whether accuracy is also told by how many training images the
      classes have.
    templates: Prompts of a CLIP.
    own_head: Whether a ViT may start from the head in its file, see
      `experiments.models.backbones.load`.
    combines: Whether it trains nothing and combines finished checkpoints.
    view: What of an image is seen, and its size.
    warmup: The share of the steps in which the learning rate rises.
    seeds: Of everything random.
    probe_images: From how many training images, class by class, a blank head is
      fitted. All of ImageNet's would take days: scikit-learn's solver on one
      thread needs a minute and more per iteration.
    remat: Recompute each block in the backward pass, to save memory.

  Raises:
    ValueError: Unless there is one of `epochs` and `steps`, or the experiment
      only combines.
  """

  open: Callable[[pathlib.Path, View, str, int], Opened]
  methods: tuple[Method, ...]
  batch_size: int = 1
  epochs: float | None = None
  steps: int | None = None
  cases: Callable[[pathlib.Path], tuple[str, ...]] = lambda root: ("all",)
  headline: Callable[[Metrics], dict[str, float]] = accuracies
  long_tail: bool = False
  templates: tuple[str, ...] = clip.PHOTO_TEMPLATES
  own_head: bool = False
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

  def length(self, opened: Opened, batch_size: int) -> int:
    """The steps of a run; the last epoch is filled up."""
    if self.combines:
      return 0
    if self.epochs is None:
      return opened.steps or self.steps or 0
    return math.ceil(self.epochs * len(opened.source.train) / batch_size)
