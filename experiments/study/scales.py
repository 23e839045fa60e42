"""How large the study is: what two CPU cores can do, and what a GPU can."""

import dataclasses
import pathlib

from experiments.study.tasks import Pacs

PACS = pathlib.Path("data/PACS")
VIT = pathlib.Path("data/vit_tiny.safetensors")

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
    core_sources: Domains on which the core methods are.
    targets: Domains that the core methods are kept from, training on the rest.
  """

  name: str
  image_size: int
  steps: int
  batch_size: int
  per_domain: int | None
  seeds: tuple[int, ...]
  sources: tuple[str, ...]
  core_sources: tuple[str, ...]
  targets: tuple[str, ...]

  def pacs(
    self,
    root: pathlib.Path,
    weights: pathlib.Path,
    *,
    source: str | None = None,
    target: str | None = None,
    train_images: int | None = None,
  ) -> Pacs:
    """The task of a source or a target domain at this scale."""
    return Pacs(
      root=root,
      weights=weights,
      image_size=self.image_size,
      source=source,
      target=target,
      steps=self.steps,
      batch_size=self.batch_size,
      per_domain=self.per_domain,
      train_images=train_images,
    )


SCALES = {
  # A run takes 45 s on two cores. The images are an eighth of the area of those
  # that the ViT was trained on, and the runs are short: accuracies are far
  # below what this model can do, and only differences are of interest.
  "cpu": Scale(
    name="cpu",
    image_size=64,
    steps=100,
    batch_size=32,
    per_domain=600,
    seeds=(0, 1, 2, 3, 4),
    sources=("cartoon",),
    core_sources=(),
    targets=("sketch",),
  ),
  "gpu": Scale(
    name="gpu",
    image_size=160,
    steps=1000,
    batch_size=64,
    per_domain=None,
    seeds=(0, 1, 2, 3, 4),
    sources=DOMAINS,
    core_sources=(),
    targets=DOMAINS,
  ),
}
