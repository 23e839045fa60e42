"""What the study trains and evaluates on."""

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple, Protocol

import numpy as np

from experiments import demo, probe
from experiments.classifier import Classifier
from experiments.data import domainbed, scanned_digits, shifts
from experiments.data.folds import leave_out
from experiments.data.joined import of_splits
from experiments.data.split import Source, Split, hold_out
from experiments.runs import Task
from gmixout_jax import clip

HELD_OUT = 0.2
"""The share of every class of every source domain that choices are made on."""


class Loaded(NamedTuple):
  """A task as one seed sees it.

  Attributes:
    task: To train on, with the validation split.
    held_out: What in-distribution accuracy is reported on: the validation
      images, or, where there are some that no choice has seen, those.
    targets: What no choice ever sees, by name.
  """

  task: Task
  held_out: Split
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
  """

  steps: int = 150
  batch_size: int = 64

  def load(self, seed: int) -> Loaded:
    """The scans' split is the same for every seed."""
    parts = scanned_digits.load()
    task = Task(
      model=demo.zero_shot_classifier(),
      source=Source(parts["train"], parts["validation"]),
      steps=self.steps,
      batch_size=self.batch_size,
      augmented=False,
      seed=seed,
    )
    test = parts["test"]
    return Loaded(task, test, shifts.out_of_distribution(test))

  def described(self) -> dict[str, Any]:
    """As the lines of the demo and of `experiments.rivals`."""
    return {
      "data": "scanned_digits",
      "steps": self.steps,
      "batch_size": self.batch_size,
    }


@dataclasses.dataclass(frozen=True)
class Pacs:
  """PACS, or any folder in DomainBed's layout.

  Attributes:
    root: The folder.
    weights: A ViT: safetensors with timm's names.
    image_size: Side of the images, a multiple of the patch size.
    source: The domain to train on, all others being targets; or None.
    target: The one domain not to train on; or None.
    steps: Optimizer steps per run.
    batch_size: Images per step.
    per_domain: How many images of each target domain to evaluate on, drawn
      once and for all; all if None.
    train_images: How many images to train on, drawn by the seed; all if None.
  """

  root: pathlib.Path
  weights: pathlib.Path
  image_size: int
  source: str | None = None
  target: str | None = None
  steps: int = 300
  batch_size: int = 32
  per_domain: int | None = None
  train_images: int | None = None

  def __post_init__(self) -> None:
    if (self.source is None) == (self.target is None):
      raise ValueError(
        "either a source or a target must be named, got source"
        f" {self.source!r} and target {self.target!r}."
      )

  def load(self, seed: int) -> Loaded:
    """The head is a linear probe, fitted once for all methods of a seed."""
    source, targets = _cut(self, seed)
    task = Task(
      model=_probed(self, seed),
      source=source,
      steps=self.steps,
      batch_size=self.batch_size,
      seed=seed,
    )
    return Loaded(task, _in_memory(source.validation), targets)

  def described(self) -> dict[str, Any]:
    """Like the lines of `experiments.train`."""
    data = {
      "root": self.root.name,
      "source": self.source,
      "target": self.target,
      "image_size": self.image_size,
      "batch_size": self.batch_size,
      "held_out": HELD_OUT,
      "per_domain": self.per_domain,
      "train_images": self.train_images,
    }
    return {
      "data": {
        name: value for name, value in data.items() if value is not None
      },
      "weights": self.weights.name,
      "steps": self.steps,
    }


@functools.cache
def _domains(root: pathlib.Path, image_size: int) -> dict[str, Split]:
  return domainbed.read(root, image_size=image_size)


@functools.lru_cache(maxsize=2)
def _cut(setting: Pacs, seed: int) -> tuple[Source, dict[str, Split]]:
  """The source's two parts, and the targets."""
  domains = _domains(setting.root, setting.image_size)
  named = setting.source or setting.target
  if named not in domains or len(domains) < 2:
    raise ValueError(
      f"{setting.root} must hold {named!r} and another domain, got"
      f" {', '.join(domains)}."
    )
  if setting.source is not None:
    source = hold_out(domains[setting.source], fraction=HELD_OUT, seed=seed)
    away = {k: v for k, v in domains.items() if k != setting.source}
  else:
    assert setting.target is not None
    fold = leave_out(
      of_splits(domains), setting.target, fraction=HELD_OUT, seed=seed
    )
    both = fold.source
    source = Source(_in_memory(both.train), _in_memory(both.validation))
    away = {setting.target: domains[setting.target]}
  if (wanted := setting.train_images) is not None:
    train = _in_memory(source.train)
    order = np.random.default_rng((seed, 1)).permutation(len(train))
    source = source._replace(train=train.take(np.sort(order[:wanted])))
  return source, {k: _some(v, setting.per_domain) for k, v in away.items()}


@functools.lru_cache(maxsize=2)
def _probed(setting: Pacs, seed: int) -> Classifier:
  source, _ = _cut(setting, seed)
  vit = clip.vit_from_safetensors(
    setting.weights, image_size=setting.image_size, num_classes=0
  )
  blank = Classifier.with_zero_head(
    vit, width=vit.config.width, classes=len(source.train.class_names)
  )
  return probe.fit_head(blank, source)


def _some(split: Split, count: int | None) -> Split:
  """The same images for every seed and method, so that all are paired."""
  if count is None or count >= len(split):
    return split
  order = np.random.default_rng(0).permutation(len(split))
  return split.take(np.sort(order[:count]))


def _in_memory(images: Any) -> Split:
  return images if isinstance(images, Split) else images.in_memory()
