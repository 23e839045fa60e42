"""The demo's task: its small CLIP meets scanned digits, and eight shifts.

A CLIP, pretrained by `experiments.pretraining.pretrain_demo` on rendered digits
and shipped with the code, is fine-tuned on 1,078 plain scans from its zero-shot
head. ID accuracy is on scans that no choice has seen, OOD accuracy on eight
shifted sets (`experiments.data.shifts`).
"""

import dataclasses
import pathlib

from experiments.data import rendered_digits, scanned_digits, shifts
from experiments.data.source import Source
from experiments.models import backbones
from experiments.models.classifier import Classifier
from experiments.reporting.records import Record
from experiments.tasks.recipe import Recipe
from experiments.tasks.task import Opened

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
    recipe: Settings of a step that do not belong to the method.
  """

  steps: int = 150
  batch_size: int = 64
  recipe: Recipe = dataclasses.field(default_factory=Recipe)

  @property
  def config(self) -> Record:
    """See `Task`."""
    return {
      "data": "scanned_digits",
      "steps": self.steps,
      "batch_size": self.batch_size,
      **self.recipe.described(),
    }

  def open(self, seed: int) -> Opened:
    """See `Task`; the scans' split is the same for every seed."""
    parts = scanned_digits.load()
    source = Source(parts["train"], parts["validation"])
    return Opened(
      model=zero_shot_classifier(),
      source=source,
      steps=self.steps,
      batch_size=self.batch_size,
      augment="none",
      seed=seed,
      recipe=self.recipe,
      test=parts["test"],
      ood=shifts.out_of_distribution(parts["test"]),
    )
