"""What the study trains and evaluates on."""

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple, Protocol

import numpy as np
from flax import nnx

from experiments import demo, domains
from experiments.data import domainbed, scanned_digits, shifts
from experiments.data.images import ImageSet
from experiments.data.source import Source
from experiments.data.split import Split
from experiments.models import backbones, probe
from experiments.models.classifier import Classifier, ClipImageEncoder
from experiments.pretraining import zero_shot
from experiments.training.runs import Task
from gmixout_jax import clip


class Loaded(NamedTuple):
  """A task as one seed sees it.

  Attributes:
    task: To train on, with the validation split.
    held_out: What in-distribution accuracy is reported on: the validation
      images, or, where there are some that no choice has seen, those.
    targets: What no choice ever sees, by name.
  """

  task: Task
  held_out: Split | ImageSet
  targets: dict[str, Split]


class Setting(Protocol):
  """A task of the study; hashable."""

  def load(self, seed: int) -> Loaded:
    """Reads it; the seed cuts the source and orders the images."""
    ...

  def described(self) -> dict[str, Any]:
    """What a line of results says of it, all that numbers depend on."""
    ...


@dataclasses.dataclass(frozen=True)
class Digits:
  """The demo's task: its CLIP, scanned digits, eight shifts.

  Attributes:
    steps: Optimizer steps per run.
    batch_size: Images per step.
    pretrained: Whether runs start from the demo's CLIP and its zero-shot head.
      If not, from random weights of its image tower, drawn by the seed, under
      a linear probe.
  """

  steps: int = 150
  batch_size: int = 64
  pretrained: bool = True

  def load(self, seed: int) -> Loaded:
    """The scans' split is the same for every seed."""
    parts = scanned_digits.load()
    source = Source(parts["train"], parts["validation"])
    task = Task(
      model=demo.zero_shot_classifier()
      if self.pretrained
      else _untrained(source, seed),
      source=source,
      steps=self.steps,
      batch_size=self.batch_size,
      augmented=False,
      seed=seed,
    )
    test = parts["test"]
    return Loaded(task, test, shifts.out_of_distribution(test))

  def described(self) -> dict[str, Any]:
    """As the lines of the demo."""
    untrained = {} if self.pretrained else {"backbone": "random"}
    return {
      "data": "scanned_digits",
      "steps": self.steps,
      "batch_size": self.batch_size,
      **untrained,
    }


def _untrained(source: Source, seed: int) -> Classifier:
  """An image tower like the demo's that has seen nothing, under a probe."""
  config = clip.from_pretrained(demo.FOLDER).config
  mean, std = clip.load_normalization(demo.FOLDER)
  model = Classifier.with_zero_head(
    ClipImageEncoder(clip.CLIP(config, rngs=nnx.Rngs(seed))),
    width=config.projection_dim,
    classes=len(source.train.class_names),
    mean=mean,
    std=std,
  )
  return probe.fit_head(model, source)


@dataclasses.dataclass(frozen=True)
class Domains:
  """PACS, or any folder in DomainBed's layout.

  Where a domain is left out, batches are drawn from the images of all others
  alike, so that a domain's share of a batch is its share of the images. (The
  published lines are of such runs; `experiments.train` takes as many of each.)

  Attributes:
    data: Which domains train, and at what size.
    backbone: A ViT, safetensors with timm's names, which starts under a linear
      probe; or the folder of a CLIP, which starts under a head of words.
    steps: Optimizer steps per run.
    per_domain: How many images of each target domain to evaluate on, drawn
      once and for all; all if None.
    train_images: How many images to train on, drawn by the seed; all if None.
  """

  data: domains.Data
  backbone: pathlib.Path
  steps: int
  per_domain: int | None = None
  train_images: int | None = None

  def load(self, seed: int) -> Loaded:
    """The head is fitted once for all methods of a seed."""
    source, targets = _cut(self, seed)
    task = Task(
      model=_started(self, seed),
      source=source,
      steps=self.steps,
      batch_size=self.data.batch_size,
      seed=seed,
    )
    return Loaded(task, source.validation, targets)

  def described(self) -> dict[str, Any]:
    """Like the lines of `experiments.train`."""
    fewer = {"per_domain": self.per_domain, "train_images": self.train_images}
    data = self.data.described() | {k: v for k, v in fewer.items() if v}
    kind = "backbone" if self.backbone.is_dir() else "weights"
    return {"data": data, kind: self.backbone.name, "steps": self.steps}


@functools.cache
def _read(data: domains.Data) -> dict[str, Split]:
  # Not `data.read`, which asks for the default source where none is named.
  return domainbed.read(
    data.root, image_size=data.image_size, skip_broken=data.skip_broken
  )


@functools.lru_cache(maxsize=2)
def _cut(setting: Domains, seed: int) -> tuple[Source, dict[str, Split]]:
  """The source's two parts, and the targets."""
  images = _read(dataclasses.replace(setting.data, source=None, target=None))
  option, name = setting.data.chosen
  if name not in images or len(images) < 2:
    raise ValueError(
      f"{option} must be one of several domains of {setting.data.root}, got"
      f" {name!r} and"
      f" the domains {', '.join(images)}."
    )
  source = setting.data.source_of(images, seed)
  if (wanted := setting.train_images) is not None:
    order = np.random.default_rng((seed, 1)).permutation(len(source.train))
    few = source.train.take(np.sort(order[:wanted]))
    source = source._replace(train=few)
  targets = setting.data.targets_of(images)
  return source, {k: _some(v, setting.per_domain) for k, v in targets.items()}


@functools.lru_cache(maxsize=2)
def _started(setting: Domains, seed: int) -> Classifier:
  """The model that all methods start from."""
  source, _ = _cut(setting, seed)
  names, size = source.train.class_names, setting.data.image_size
  model = backbones.load(
    setting.backbone,
    classes=len(names),
    words=lambda: names,
    templates=zero_shot.TEMPLATES,
    image_size=size,
  )
  return probe.fit_head(model, source) if probe.is_blank(model) else model


def _some(split: Split, count: int | None) -> Split:
  """The same images for every seed and method, so that all are paired."""
  if count is None or count >= len(split):
    return split
  order = np.random.default_rng(0).permutation(len(split))
  return split.take(np.sort(order[:count]))
