"""A backbone fine-tuned on image files: every task but the demo's.

`Images` says which images, `Setup` how to train; the command line makes one of
each (`experiments.task_options`), and so do the configs.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from experiments.data.augmentation import Augmentation
from experiments.data.decode import View
from experiments.data.images import ImageSet
from experiments.data.source import Source
from experiments.data.split import Split
from experiments.models import backbones, preprocessing, probe
from experiments.models.classifier import Classifier
from experiments.reporting import records
from experiments.reporting.records import Record
from experiments.tasks import length
from experiments.tasks.recipe import Recipe
from experiments.tasks.task import Metrics, Opened
from gmixout_jax import clip

LARGEST = 4096
"""Side of the largest images, in pixels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sets:
  """The sets of a task, as one seed sees them.

  Attributes:
    source: What a method may see.
    ood: The OOD sets, by name; perhaps none.
    words: The class names for prompts, called for a CLIP only; "_" is read as a
      space.
    test: ID test images; None if the protocol reports on the validation images.
    balanced: Whether a batch has equally many images of each domain.
    notes: Messages about images that could not be decoded; the sets themselves
      say which files were skipped in listing.
  """

  source: Source
  ood: Mapping[str, Split | ImageSet]
  words: Callable[[], Sequence[str]]
  test: Split | ImageSet | None = None
  balanced: bool = False
  notes: tuple[str, ...] = ()


class Images(Protocol):
  """Where the images of a task come from."""

  @property
  def view(self) -> View | None:
    """What is seen of an image, but for its size; None as the backbone says."""
    ...

  def described(self, image_size: int, batch_size: int) -> Record:
    """What a line of results says of the images, these two included."""
    ...

  def open(self, view: View, seed: int) -> Sets:
    """Opens them.

    Args:
      view: What is seen of each.
      seed: It cuts off the validation images, if they are not given.
    """
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
  """The pretrained model, and how a step and a run are made.

  Attributes:
    backbone: The folder or file of a CLIP or a ViT; see `clip.load`.
    image_size: Side of the images in pixels, a multiple of the patch size; None
      for the backbone's own.
    mean: Of the pixels that the backbone was trained on, per channel, in
      [0, 1]; by default from its files.
    std: Likewise.
    dtype: The dtype of computation; what is stored is float32.
    attention: "cudnn" needs an NVIDIA GPU since Ampere, and bfloat16.
    remat: Recompute each block in the backward pass.
    batch_size: Images per step.
    steps: Optimizer steps of a run; 300 without `epochs`.
    epochs: The length of a run instead; the last batch is filled up.
    warmup: The fraction of warm-up steps.
    augment: The augmentation, see `experiments.data.augmentation`.
    skip_nonfinite: How many steps in a row may be skipped because their loss or
      gradient is not finite.
    recipe: Settings of a step that do not belong to the method.
    templates: Prompts of a CLIP.
    tell_templates: Whether lines record others than CLIP's own, as they are not
      the data's either.
    use_head: Whether to start from the head in the backbone's files.
    probe_images: From how many training images, class by class, a blank head is
      fitted; None for all. scikit-learn's solver on all of ImageNet's would
      take days.
    fingerprint: Whether lines record a hash of the backbone, beside its name.

  Raises:
    ValueError: If one is out of range, or there are both steps and epochs.
  """

  backbone: pathlib.Path
  image_size: int | None = None
  mean: tuple[float, ...] | None = None
  std: tuple[float, ...] | None = None
  dtype: backbones.Dtype = "float32"
  attention: backbones.Attention = "xla"
  remat: bool = False
  batch_size: int = 32
  steps: int | None = None
  epochs: float | None = None
  warmup: float = 0.1
  augment: Augmentation = "basic"
  skip_nonfinite: int = 0
  recipe: Recipe = dataclasses.field(default_factory=Recipe)
  templates: tuple[str, ...] = clip.PHOTO_TEMPLATES
  tell_templates: bool = False
  use_head: backbones.UseHead = "named"
  probe_images: int | None = None
  fingerprint: bool = True

  def __post_init__(self):
    length.check(self.steps, self.epochs)
    size = self.image_size
    if size is not None and not 1 <= size <= LARGEST:
      raise ValueError(
        f"image_size must be at least 1 pixel and at most {LARGEST}, got"
        f" {size}."
      )
    if self.batch_size < 1:
      raise ValueError(
        f"batch_size must be at least 1 image, got {self.batch_size}."
      )
    preprocessing.check_pixels(self.mean, self.std)
    if self.steps is None and self.epochs is None:
      object.__setattr__(self, "steps", length.DEFAULT_STEPS)

  def described(self) -> Record:
    """What a line says of it; JSON, without what is as it usually is."""
    kind = "backbone" if self.backbone.is_dir() else "weights"
    found: Record = {kind: self.backbone.name}
    if self.fingerprint:
      found["backbone_digest"] = backbones.digest(self.backbone)
    found |= (
      {"steps": self.steps} if self.epochs is None else {"epochs": self.epochs}
    )
    usual = {field.name: field.default for field in dataclasses.fields(self)}
    for name in (
      *("mean", "std", "dtype", "attention", "remat", "warmup", "augment"),
      "skip_nonfinite",
    ):
      if (value := getattr(self, name)) != usual[name]:
        found[name] = list(value) if isinstance(value, tuple) else value
    if self.augment != "none":
      found["crops"] = records.CROPS
    if self.tell_templates:
      found["templates"] = list(self.templates)
    if self.guessed:
      found["preprocessing"] = "CLIP's"
    return found | self.recipe.described()

  @property
  def guessed(self) -> bool:
    """Whether nothing says how images are prepared, and it is CLIP's way."""
    pixels = {"mean": self.mean, "std": self.std}
    return preprocessing.is_guessed(self.backbone, **pixels)

  @functools.cached_property
  def prepared(self) -> clip.Preprocessing:
    """How the backbone wants its images; errors as of `preprocessing.load`."""
    return preprocessing.load(self.backbone, mean=self.mean, std=self.std)

  @functools.cached_property
  def size(self) -> int:
    """Side of the images, in pixels."""
    if self.image_size is not None:
      return self.image_size
    return backbones.image_size(self.backbone)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageTask:
  """Images, and how they are trained on.

  Attributes:
    images: Where they come from.
    setup: The pretrained model, and how to train.
    headline: See `Opened`.
    long_tail: Whether accuracy is also reported by the number of training
      images of the classes.
  """

  images: Images
  setup: Setup
  headline: Callable[[Metrics], dict[str, float]] | None = None
  long_tail: bool = False

  @property
  def config(self) -> Record:
    """See `Task`."""
    return self._config

  @functools.cached_property
  def _config(self) -> Record:
    setup = self.setup
    return (
      self.images.described(setup.size, setup.batch_size) | setup.described()
    )

  def open(self, seed: int) -> Opened:
    """See `Task`; a blank head is fitted, so that all methods share it."""
    setup = self.setup
    # Before anything is read, which may take minutes.
    backbones.check(dtype=setup.dtype, attention=setup.attention)
    backbones.check_path(setup.backbone)
    own = self.images.view or preprocessing.view(setup.prepared, setup.size)
    view = dataclasses.replace(own, size=setup.size).in_whole_pixels()
    sets = self.images.open(view, seed)
    train = sets.source.train
    counts = None
    if self.long_tail:
      counts = train.counts().sum(axis=0)  # pyright: ignore
    model, made, notes = _started(setup, sets, seed)
    return Opened(
      model=model,
      source=sets.source,
      steps=length.steps(
        setup.steps, setup.epochs, images=len(train), batch=setup.batch_size
      ),
      batch_size=setup.batch_size,
      warmup=setup.warmup,
      augment=setup.augment,
      balanced=sets.balanced,
      seed=seed,
      skip_nonfinite=setup.skip_nonfinite,
      recipe=setup.recipe,
      test=sets.test,
      ood=sets.ood,
      train_counts=counts,
      headline=self.headline,
      zero_shot=made,
      view=view,
      notes=(*_left_out(sets), *sets.notes, *notes),
    )


def _left_out(sets: Sets) -> Iterable[str]:
  """What is said of the listings, once where they share a folder."""
  every = (*sets.source, sets.test, *sets.ood.values())
  return dict.fromkeys(
    sentence
    for images in every
    if isinstance(images, ImageSet)
    for sentence in images.left_out
  )


def _started(
  setup: Setup, sets: Sets, seed: int
) -> tuple[Classifier, bool, list[str]]:
  """The backbone under a head that works.

  Returns:
    The model; whether its head was made without images; and what to say of it.
  """
  train = sets.source.train
  model = backbones.load(
    setup.backbone,
    train.class_names,
    words=sets.words,
    templates=setup.templates,
    use_head=setup.use_head,
    remat=setup.remat,
    dtype=setup.dtype,
    attention=setup.attention,
    image_size=setup.size,
    mean=setup.mean,
    std=setup.std,
  )
  notes, prepared = [], setup.prepared
  if setup.guessed:
    notes.append(
      f"{setup.backbone} has no preprocessing config, so CLIP's documented one"
      f" is used: mean {_listed(prepared.mean)}, std {_listed(prepared.std)},"
      f" the shorter side resized (bicubic) to {setup.size} pixels, the central"
      " square."
    )
  own = setup.use_head != "never" and backbones.own_head_of(
    setup.backbone, train.class_names
  )
  if own:
    notes.append(
      f"Runs start from the head in {setup.backbone}, which has these classes."
    )
  if not probe.is_blank(model):
    return model, model.prompts is not None, notes
  if setup.probe_images is not None and isinstance(train, ImageSet):
    train = probe.some_of_each(train, setup.probe_images, seed=seed)
  data = Source(train, sets.source.validation)
  return probe.fit_head(model, data), False, notes


def _listed(values: Sequence[float]) -> str:
  return " ".join(f"{value:g}" for value in values)
