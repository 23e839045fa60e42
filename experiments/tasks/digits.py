"""The demo's task: its small CLIP meets scanned digits, and eight shifts.

A CLIP, pretrained by `experiments.pretraining.pretrain_demo` on rendered digits
and shipped with the code, is fine-tuned on 1,078 plain scans from its zero-shot
head. ID accuracy is on scans that no choice has seen, OOD accuracy on eight
shifted sets (`experiments.data.shifts`).
"""

import dataclasses
import pathlib

from flax import nnx

from experiments.data import rendered_digits, scanned_digits, shifts
from experiments.data.source import Source
from experiments.models import backbones, probe
from experiments.models.classifier import Classifier, ClipImageEncoder
from experiments.reporting.records import Record
from experiments.tasks.recipe import Recipe
from experiments.tasks.task import Opened
from gmixout_jax import clip

FOLDER = pathlib.Path(__file__).parents[1] / "demo_clip"

TEMPLATES = (
  rendered_digits.PLAIN_CAPTION,
  "a white digit {} on a black plain background",
  "a black digit {} on a white plain background",
)
"""Prompts of the zero-shot head: plain, and either way round."""


def zero_shot_classifier(folder: pathlib.Path = FOLDER) -> Classifier:
  """The image tower of the shipped CLIP under its zero-shot head."""
  return backbones.from_clip(folder, rendered_digits.NAMES, TEMPLATES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits:
  """The task.

  Attributes:
    steps: Optimizer steps per run.
    batch_size: Images per step.
    pretrained: Whether runs start from the demo's CLIP and its zero-shot head.
      If not, from random weights of its image tower, drawn by the seed, under
      a linear probe.
    recipe: Settings of a step that do not belong to the method.
  """

  steps: int = 150
  batch_size: int = 64
  pretrained: bool = True
  recipe: Recipe = dataclasses.field(default_factory=Recipe)

  @property
  def config(self) -> Record:
    """See `Task`."""
    untrained = {} if self.pretrained else {"backbone": "random"}
    return {
      "data": "scanned_digits",
      "steps": self.steps,
      "batch_size": self.batch_size,
      **untrained,
      **self.recipe.described(),
    }

  def open(self, seed: int) -> Opened:
    """See `Task`; the scans' split is the same for every seed."""
    parts = scanned_digits.load()
    source = Source(parts["train"], parts["validation"])
    return Opened(
      model=zero_shot_classifier()
      if self.pretrained
      else _untrained(source, seed),
      source=source,
      steps=self.steps,
      batch_size=self.batch_size,
      augment="none",
      seed=seed,
      recipe=self.recipe,
      test=parts["test"],
      ood=shifts.out_of_distribution(parts["test"]),
    )


def _untrained(source: Source, seed: int) -> Classifier:
  """An image tower like the demo's that has seen nothing, under a probe."""
  config = clip.from_pretrained(FOLDER).config
  mean, std = clip.load_normalization(FOLDER)
  model = Classifier.with_zero_head(
    ClipImageEncoder(clip.CLIP(config, rngs=nnx.Rngs(seed))),
    width=config.projection_dim,
    classes=len(source.train.class_names),
    mean=mean,
    std=std,
  )
  return probe.fit_head(model, source)
