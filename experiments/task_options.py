"""Flags of commands that train: on what, from what, how long."""

import dataclasses
import pathlib
from typing import Annotated, Any

import tyro

from experiments import configs
from experiments.data.augmentation import Augmentation
from experiments.models import backbones
from experiments.tasks import length, user_images
from experiments.tasks.domains import Domains
from experiments.tasks.experiment import ONLY, Experiment
from experiments.tasks.image_task import ImageTask, Setup
from experiments.tasks.recipe import Recipe
from experiments.tasks.task import Task
from experiments.tasks.user_images import UserImages
from gmixout_jax import clip

DOMAINBED = (
  "domainbed", "pacs", "vlcs", "office_home", "terra_incognita", "domain_net",
)  # fmt: skip
"""Data in DomainBed's layout, of which one domain is trained on or left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions:
  """What to train on, what to start from, and how long.

  Attributes:
    backbone: The pretrained model: a CLIP, a SigLIP or a ViT in a folder, as
      Hugging Face, open_clip or timm save it, or a ViT in a safetensors file
      with timm's names.
    train: Your own training images: a folder of class folders, or a CSV with
      the columns file and label, whose paths are relative to its folder.
    val: ID validation images, to choose by and to report ID accuracy on; by
      default a seeded fraction of --train is held out.
    ood: OOD folders or CSVs, NAME=DIR; reported, and never used to choose.
    data: Instead of --train, images by name: domainbed, pacs, vlcs,
      office_home, terra_incognita, domain_net; or an experiment in
      experiments/configs, such as imagenet.
    root: The folder of --data.
    source: In DomainBed's layout, the domain to train on; all others are OOD.
    target: Instead of --source, the domain to leave out as OOD. Batches then
      have equally many images of each other domain.
    held_out: The fraction of the training images of each class that is held out
      for validation, if there are no validation images.
    skip_broken: Leave out images that cannot be decoded, and count them; by
      default the first one stops the run.
    templates: Prompts for the zero-shot head of a CLIP, such as "a photo of a
      {}.", with {} for the name of a class. They replace the head of an
      exported CLIP by a zero-shot head.
    image_size: Side of the images in pixels, a multiple of the patch size; by
      default the backbone's own, or that of an experiment.
    mean: Of the pixels the backbone was trained on, per channel, in [0, 1]; by
      default from its files.
    std: Likewise.
    batch_size: Images per step; 32 unless an experiment has its own.
    steps: Optimizer steps of a run; 300 unless --epochs is given or an
      experiment has its own.
    epochs: The length of a run instead; the last batch is filled up.
    warmup: The fraction of warm-up steps; 0.1 unless an experiment has its own.
    augment: Augmentation: "none"; "basic", a crop of 70 to 100 % of the
      original and a flip; "inception", a crop of 8 to 100 % and a flip; or
      "randaugment", inception and two operations of RandAugment.
    dtype: The dtype of computation, in training and evaluation. Weights,
      anchor, residual, moments, logits and losses are float32.
    remat: Recompute each block in the backward pass: a sixth of the memory; on
      CPUs less time, as it fits their caches, on a GPU more.
    attention: "cudnn" keeps no matrix of scores; it needs an NVIDIA GPU since
      Ampere, and --dtype bfloat16.
    skip_nonfinite: How many steps in a row may be skipped because their loss or
      gradient is not finite; by default such a step stops the run.
    training: Settings of a step that do not belong to the method.

  Raises:
    ValueError: If there are both steps and epochs, or one of these or the share
      held out is out of range.
  """

  backbone: pathlib.Path | None = None
  train: pathlib.Path | None = None
  val: pathlib.Path | None = None
  ood: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
  data: str | None = None
  root: pathlib.Path | None = None
  source: str | None = None
  target: str | None = None
  held_out: float = 0.2
  skip_broken: bool = False
  templates: tuple[str, ...] | None = None
  image_size: int | None = None
  mean: tuple[float, float, float] | None = None
  std: tuple[float, float, float] | None = None
  batch_size: int | None = None
  steps: int | None = None
  epochs: float | None = None
  warmup: float | None = None
  augment: Augmentation = "basic"
  dtype: backbones.Dtype = "float32"
  remat: bool = False
  attention: backbones.Attention = "xla"
  skip_nonfinite: int = 0
  training: Annotated[Recipe, tyro.conf.OmitArgPrefixes] = dataclasses.field(
    default_factory=Recipe
  )

  def __post_init__(self):
    length.check(self.steps, self.epochs)
    if not 0 < self.held_out < 1:
      raise ValueError(f"held_out must be in (0, 1), got {self.held_out}.")

  def setup(self, **own: Any) -> Setup:
    """How the task is trained on.

    Args:
      **own: The defaults of an experiment, for what was not asked for.
    """
    if self.backbone is None:
      raise ValueError(
        "--backbone must name a folder as Hugging Face, open_clip or timm save"
        " it, or a ViT in safetensors with timm's names."
      )
    if self.steps is not None or self.epochs is not None:
      own = own | {"steps": None, "epochs": None}
    names = (
      *("image_size", "mean", "std", "batch_size", "steps", "epochs", "warmup"),
      *("augment", "dtype", "attention", "skip_nonfinite"),
    )
    asked = {name: getattr(self, name) for name in names}
    if self.remat:
      asked["remat"] = True
    if self.templates is not None:
      backbones.check_templates(self.backbone, self.templates)
      asked |= {
        "templates": self.templates,
        "tell_templates": True,
        "use_head": "never",
      }
    given = own | {k: v for k, v in asked.items() if v is not None}
    return Setup(backbone=self.backbone, recipe=self.training, **given)

  def task(self) -> Task:
    """What the flags ask for.

    Raises:
      FileNotFoundError: If the backbone is not there.
      ValueError: If flags are missing, or do not go together.
    """
    if (self.train is None) == (self.data is None):
      raise ValueError(
        "--train must name a folder of class folders, or --data a set of"
        f" images: give one of them, got {self.train} and {self.data!r}."
      )
    if self.train is not None:
      self._refuse("--train", "root", "source", "target")
      if self.val is not None:
        self._refuse("--val", "held_out")
      return ImageTask(
        UserImages(
          train=self.train,
          validation=self.val,
          ood=user_images.parse_ood(self.ood),
          held_out=self.held_out,
          skip_broken=self.skip_broken,
        ),
        self.setup(),
      )
    if self.root is None:
      raise ValueError(f"--root must name the folder of --data {self.data}.")
    if self.data in DOMAINBED:
      self._refuse(f"--data {self.data}", "val", "ood")
      return ImageTask(
        Domains(
          root=self.root,
          source=self.source,
          target=self.target,
          held_out=self.held_out,
          skip_broken=self.skip_broken,
        ),
        self.setup(templates=clip.PHOTO_TEMPLATES),
      )
    name, _, case = (self.data or "").partition("/")
    experiment = configs.load(name) if name in configs.names() else None
    if not isinstance(experiment, Experiment) or experiment.combines:
      raise ValueError(
        f"--data must be one of {', '.join(DOMAINBED)}, or an experiment that"
        f" trains, such as imagenet; got {self.data!r}."
      )
    known = experiment.cases(self.root)
    if (case or ONLY) not in known:
      wanted = ", ".join(f"{name}/{one}" for one in known)
      raise ValueError(f"--data must be one of {wanted}; got {self.data!r}.")
    return self.case_of(experiment, name, case or ONLY)

  def case_of(self, experiment: Experiment, name: str, case: str) -> ImageTask:
    """One case of an experiment, with what was asked for in place of its own.

    Raises:
      ValueError: If flags are missing, or do not go with it.
    """
    self._refuse(name, "train", "val", "ood", "source", "target")
    self._refuse(name, "held_out", "skip_broken")
    if self.root is None:
      raise ValueError(f"--root must name the folder of the data of {name}.")
    own = experiment.setup(self.root, case)
    return experiment.task(name, self.root, case, self.setup(**own))

  def refuse_all_but(self, *names: str) -> None:
    """Whether anything else was asked for.

    Raises:
      ValueError: If so; it names the flag.
    """
    for field in dataclasses.fields(TaskOptions):
      if field.name in names:
        continue
      usual = Recipe() if field.name == "training" else field.default
      if (value := getattr(self, field.name)) != usual:
        if isinstance(value, Recipe):
          (flag, value), *_ = value.described().items()
        else:
          flag = field.name
        known = [
          "those of a train step"
          if name == "training"
          else f"--{name.replace('_', '-')}"
          for name in names
        ]
        raise ValueError(
          f"--{flag.replace('_', '-')} has no meaning here, got {value}: of"
          f" what is trained on, only {', '.join(known)} can be given."
        )

  def _refuse(self, given: str, *names: str) -> None:
    for field in dataclasses.fields(TaskOptions):
      value = getattr(self, field.name)
      if field.name in names and value != field.default:
        flag = field.name.replace("_", "-")
        raise ValueError(
          f"--{flag} does not go with {given}, got {value}: leave it out."
        )
