"""What `experiments.train` and `experiments.sweep` share of their flags."""

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from experiments import configs
from experiments.data.batches import Augmentation
from experiments.harness.command import Session, session
from experiments.harness.places import Places
from experiments.models import backbones
from experiments.tasks import class_folders, length
from experiments.tasks.class_folders import ClassFolders
from experiments.tasks.domains import Domains
from experiments.tasks.experiment import ONLY, Experiment
from experiments.tasks.image_task import ImageTask, Setup
from experiments.tasks.recipe import Recipe
from experiments.tasks.task import Task
from experiments.training.sharding import Sharding
from experiments.training.watching import Watching
from gmixout_jax import clip

DOMAINBED = (
  "domainbed", "pacs", "vlcs", "office_home", "terra_incognita", "domain_net",
)  # fmt: skip
"""Data in DomainBed's layout, of which one domain is trained on or left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions:
  """What to train on, from what, and how long.

  Attributes:
    backbone: What to start from: a Hugging Face CLIP folder, or a ViT in
      safetensors with timm's names.
    train: Your own images to train on: a folder of class folders.
    val: Class folders to choose by and to report ID accuracy on; by default a
      seeded share of --train is held out.
    ood: Further class folders, NAME=DIR; shown, and never used to choose.
    data: Or images by name: domainbed, pacs, vlcs, office_home,
      terra_incognita, domain_net; or one of the experiments in
      experiments/configs, such as imagenet.
    root: The folder of --data.
    source: Of DomainBed's layout, the domain to train on; all others are OOD.
    target: Or the domain to leave out; batches then have as many images of one
      of the others as of another.
    held_out: The share of the training images, class by class, that is kept to
      choose by where these are not given.
    skip_broken: Leave out images that cannot be decoded, with a warning that
      counts them; by default the first one stops the run.
    image_size: Side of the images in pixels, a multiple of the patch size; by
      default the backbone's own, or that of an experiment.
    mean: Of the pixels the backbone was trained on, per channel, in [0, 1]; by
      default what its files say, and 0.5 for a ViT.
    std: Likewise.
    batch_size: Images per step; 32 unless an experiment has its own.
    steps: Optimizer steps of a run; 300 if there are no epochs either, and no
      experiment has its own.
    epochs: The length of a run instead; the last one is filled up.
    warmup: The share of the steps in which the learning rate rises; 0.1 unless
      an experiment has its own.
    augment: What is done to training images: "basic" is a random resized crop
      and a flip.
    dtype: What the model computes in, in training and evaluation alike. What
      is stored (weights, anchor, residual, moments) is float32, and so are
      logits and losses.
    remat: Recompute each block in the backward pass: a sixth of the memory,
      and on CPUs, whose caches it fits, less time; on a GPU more.
    attention: "cudnn" keeps no matrix of scores; it needs an NVIDIA GPU since
      Ampere, and --dtype bfloat16.
    skip_nonfinite: How many steps in a row may be skipped because their loss or
      gradient is not finite; by default such a step stops the run.
    training: What a step does that is no part of the method.

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
        "--backbone must name a Hugging Face CLIP folder, or a ViT in"
        " safetensors with timm's names."
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
        ClassFolders(
          train=self.train,
          validation=self.val,
          ood=class_folders.parse_ood(self.ood),
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
        raise ValueError(
          f"--{flag.replace('_', '-')} has no meaning here, got {value}."
        )

  def _refuse(self, given: str, *names: str) -> None:
    for field in dataclasses.fields(TaskOptions):
      value = getattr(self, field.name)
      if field.name in names and value != field.default:
        flag = field.name.replace("_", "-")
        raise ValueError(
          f"--{flag} does not go with {given}, got {value}: leave it out."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
  """Where runs are saved and written, what is seen of them, who shares them.

  Attributes:
    results: The file that lines are appended to. A cell (method, task and seed)
      that it has a line of is not run again.
    checkpoint: A folder to save runs in. Given again, runs go on from there;
      SIGTERM saves and stops them.
    save_every: Steps between two checkpoints. Each scores the weights on the
      ID validation images, and the best is kept apart from the newest two.
    export: Where to put the trained model, head included: a ViT is a
      safetensors file with timm's names, a CLIP a folder. Of a sweep, a folder
      with one for each cell. Of an ensemble, which is several models, none.
    sharding: Spread each batch over all devices: each has all weights and
      moments ("data"), or keeps a part of them ("fsdp"). By default one device
      does all, or with --distributed it is "data".
    distributed: Run in several processes, and use the devices of all.
    coordinator: Host and port of the first process.
    processes: How many processes there are.
    process: Which one this is, from 0.
    watching: What is seen of the runs on the way.
  """

  results: pathlib.Path = pathlib.Path("runs/results.jsonl")
  checkpoint: pathlib.Path | None = None
  save_every: int = 100
  export: pathlib.Path | None = None
  sharding: Sharding | None = None
  distributed: bool = False
  coordinator: str | None = None
  processes: int | None = None
  process: int | None = None
  watching: Annotated[Watching, tyro.conf.OmitArgPrefixes] = dataclasses.field(
    default_factory=Watching
  )

  def session(self) -> contextlib.AbstractContextManager[Session]:
    """What a command does around its cells; see `command.session`."""
    return session(
      saves=self.checkpoint is not None,
      distributed=self.distributed,
      coordinator=self.coordinator,
      processes=self.processes,
      process=self.process,
    )

  def places(self, **more: Any) -> Places:
    """The same for the harness; `more` are further fields of it.

    Raises:
      ValueError: If flags do not go together, or something cannot be written
        where it was asked for, which is better known before a run than after.
    """
    for name in ("coordinator", "processes", "process"):
      value = getattr(self, name)
      if value is not None and not self.distributed:
        raise ValueError(f"--{name} {value} needs --distributed.")
    if self.save_every < 1:
      raise ValueError(
        f"--save-every must be at least 1 step, got {self.save_every}."
      )
    for flag, path in (
      ("results", self.results.parent if self.results.suffix else self.results),
      ("export", self.export and self.export.absolute().parent),
      ("profile", self.watching.profile),
    ):
      if path is not None:
        check_writable(flag, path)
    sharding = self.sharding or ("data" if self.distributed else None)
    fields: dict[str, Any] = {
      "results": self.results,
      "checkpoint": self.checkpoint,
      "export": self.export,
      "save_every": self.save_every,
      "sharding": sharding,
      "watching": self.watching,
    }
    return Places(**fields | more)


def check_writable(flag: str, folder: pathlib.Path) -> None:
  """Makes a folder, and sees whether files can be put into it.

  Args:
    flag: That names it, for the message.
    folder: It is made if need be.

  Raises:
    ValueError: If not.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise ValueError(
      f"--{flag}: files cannot be written to {folder}: {error.strerror}."
    ) from None


def refuse_repeated(arguments: Sequence[str]) -> None:
  """Refuses a flag of several values that is given twice.

  The first would be lost; of one value, the last is meant.

  Raises:
    SystemExit: If one is; it is named.
  """
  flags = [word.split("=")[0] for word in arguments]
  for flag in ("--set", "--seeds", "--cases"):
    if flags.count(flag) > 1:
      sys.exit(f"error: {flag} is given twice; give all its values after one.")


def check_seed(seed: int) -> None:
  """Whether generators take it.

  Raises:
    ValueError: If not; it is quoted.
  """
  if not 0 <= seed < 2**63:
    raise ValueError(f"--seed must be from 0 to 2**63 - 1, got {seed}.")
