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
    seeds: Of the runs that are reported; rates are chosen with another one.
    sources: Domains on which every method is trained alone, one at a time.
    sizes: Numbers of images of the first source to train the core methods on.
    lengths: Steps of longer runs of full fine-tuning and GMixout.
    targets: Domains that the core methods are kept from, training on the rest.
    of_words: Side of the images in pixels, and steps per run, from a CLIP.
    whole: Whether the study is as large as it should be. If not, methods that
      differ little have one of their kind, pools of runs are of three, fewer
      images and the targets have the fewest methods that tell something, at
      the rates of the first source, and GMixout's settings are looked at on
      the digits.
  """

  name: str
  image_size: int
  steps: int
  batch_size: int
  per_domain: int | None
  seeds: tuple[int, ...]
  sources: tuple[str, ...]
  sizes: tuple[int, ...]
  lengths: tuple[int, ...]
  targets: tuple[str, ...]
  of_words: tuple[int, int]
  whole: bool

  def on(
    self,
    root: pathlib.Path,
    backbone: pathlib.Path,
    *,
    source: str | None = None,
    target: str | None = None,
    train_images: int | None = None,
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
      train_images=train_images,
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
  sources=("cartoon",),
  sizes=(200,),
  lengths=(400,),
  targets=("sketch",),
  of_words=(96, 60),
  whole=False,
)

GPU = Scale(
  name="gpu",
  image_size=160,
  steps=1000,
  batch_size=64,
  per_domain=None,
  seeds=(0, 1, 2, 3, 4),
  sources=DOMAINS,
  sizes=(100, 300, 1000),
  lengths=(4000,),
  targets=DOMAINS,
  of_words=(160, 1000),
  whole=True,
)
