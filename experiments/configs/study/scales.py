"""How large the study is: what two CPU cores can do, and what a GPU can."""

import dataclasses
import pathlib

from experiments.pretraining import zero_shot
from experiments.tasks.domains import Domains
from experiments.tasks.image_task import ImageTask, Setup
from gmixout_jax import clip

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")


@dataclasses.dataclass(frozen=True)
class Scale:
  """The size of the study on PACS.

  Attributes:
    name: Part of the names of the result files.
    image_size: Side of the images in pixels.
    steps: Optimizer steps per run.
    batch_size: Images per step.
    per_domain: Images of each target domain to evaluate on; all if None.
    seeds: Of all runs.
    sources: Domains that are trained on, one at a time; methods are compared on
      the first, and the core methods on the others.
    long_steps: Of longer runs.
    targets: Domains that the core methods are kept from, training on the rest.
    of_words: Side of the images in pixels, and steps per run, from a CLIP.
  """

  name: str
  image_size: int
  steps: int
  batch_size: int
  per_domain: int | None
  seeds: tuple[int, ...]
  sources: tuple[str, ...]
  long_steps: int
  targets: tuple[str, ...]
  of_words: tuple[int, int]

  def on(
    self,
    root: pathlib.Path,
    backbone: pathlib.Path,
    *,
    source: str | None = None,
    target: str | None = None,
  ) -> ImageTask:
    """The task of a source or a target domain at this scale.

    Its lines are as they were first published: no fingerprints, and where a
    domain is left out, batches of the images of all others alike.
    """
    images = Domains(
      root=root,
      source=source,
      target=target,
      balanced=False,
      per_domain=self.per_domain,
      fingerprint=False,
    )
    # timm's augreg ViTs, whose bare file does not say it.
    half = None if backbone.is_dir() else clip.HALF
    setup = Setup(
      backbone=backbone,
      mean=half,
      std=half,
      image_size=self.image_size,
      batch_size=self.batch_size,
      steps=self.steps,
      templates=zero_shot.TEMPLATES,
      fingerprint=False,
    )
    return ImageTask(images, setup)


CPU = Scale(
  name="cpu",
  image_size=64,
  steps=100,
  batch_size=32,
  per_domain=600,
  seeds=(0, 1, 2, 3, 4),
  sources=("cartoon", "photo"),
  long_steps=400,
  targets=("sketch",),
  of_words=(96, 60),
)

GPU = Scale(
  name="gpu",
  image_size=160,
  steps=1000,
  batch_size=64,
  per_domain=None,
  seeds=(0, 1, 2, 3, 4),
  sources=("cartoon", "photo", "art_painting", "sketch"),
  long_steps=4000,
  targets=DOMAINS,
  of_words=(160, 1000),
)
