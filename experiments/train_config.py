"""What `experiments.train` is told: one run, as a command line or as JSON."""

import dataclasses
import pathlib
import sys
from typing import Annotated, Any

import tyro

from experiments import methods
from experiments.domains import Data
from experiments.models import backbones
from experiments.reporting import records
from experiments.tasks import length
from experiments.tasks.recipe import Recipe
from experiments.training.sharding import Sharding
from experiments.training.watching import Watching
from gmixout_jax import clip


@dataclasses.dataclass(frozen=True)
class Config:
  """One run.

  Attributes:
    method: How to fine-tune.
    data: What to train on.
    weights: The pretrained ViT: safetensors with timm's names.
    mean: Of the pixels the ViT was trained on, per channel, in [0, 1].
    std: Likewise.
    remat: Recompute each block in the backward pass: a sixth of the memory,
      and on CPUs, whose caches it fits, less time; on a GPU more.
    dtype: What the model computes in, in training and evaluation alike. What
      is stored (weights, anchor, residual, moments) is float32, and so are
      logits and losses.
    attention: "cudnn" keeps no matrix of scores; it needs an NVIDIA GPU since
      Ampere, and --dtype bfloat16.
    steps: Optimizer steps; 300 if there are no epochs either.
    epochs: The length of the run instead; the last one is filled up.
    warmup: The share of the steps in which the learning rate rises.
    seed: Of everything random.
    skip_nonfinite: How many steps in a row may be skipped because their loss or
      gradient is not finite; by default such a step stops the run.
    recipe: The peak learning rate of full fine-tuning on this data, if it is
      known: a method whose own rate lies far from what follows says so.
    results: The file that the run's line is appended to.
    checkpoint: A folder to save the run in. Given again, the run goes on from
      there; SIGTERM saves it and stops it.
    save_every: Steps between two checkpoints. Each scores the weights on the
      held-out images, and the best is kept apart from the newest two.
    export: Where to put the trained ViT, head included: safetensors with timm's
      names. Of an ensemble, which is several models, none is put there.
    sharding: Spread each batch over all devices: each has all weights and
      moments ("data"), or keeps a part of them ("fsdp"). By default one device
      does all, or with --distributed it is "data".
    distributed: Run in several processes, and use the devices of all.
    coordinator: Host and port of the first process.
    processes: How many processes there are.
    process: Which one this is, from 0.
    training: What a step does that is no part of the method.
    watching: What is seen of the run on the way.

  Raises:
    ValueError: If there are both steps and epochs.
  """

  method: methods.Method
  data: Data = dataclasses.field(default_factory=Data)
  weights: pathlib.Path = pathlib.Path("data/vit_tiny.safetensors")
  mean: tuple[float, float, float] = clip.HALF
  std: tuple[float, float, float] = clip.HALF
  remat: bool = False
  dtype: backbones.Dtype = "float32"
  attention: backbones.Attention = "xla"
  steps: int | None = None
  epochs: float | None = None
  warmup: float = 0.1
  seed: int = 0
  skip_nonfinite: int = 0
  recipe: float | None = None
  results: pathlib.Path = pathlib.Path("runs/results.jsonl")
  checkpoint: pathlib.Path | None = None
  save_every: int = 100
  export: pathlib.Path | None = None
  sharding: Sharding | None = None
  distributed: bool = False
  coordinator: str | None = None
  processes: int | None = None
  process: int | None = None
  training: Annotated[Recipe, tyro.conf.OmitArgPrefixes] = dataclasses.field(
    default_factory=Recipe
  )
  watching: Annotated[Watching, tyro.conf.OmitArgPrefixes] = dataclasses.field(
    default_factory=Watching
  )

  def __post_init__(self):
    length.check(self.steps, self.epochs)
    if self.epochs is None and self.steps is None:
      object.__setattr__(self, "steps", length.DEFAULT_STEPS)


# What a number does not depend on, and the seed.
_KEPT_APART = (
  *("seed", "recipe", "results", "checkpoint", "save_every", "export"),
  *("sharding", "distributed", "coordinator", "processes", "process"),
  *("training", "watching"),  # but for what differs from the default
)


def described(config: Config) -> records.Record:
  """What was run, as JSON: all that numbers depend on but for the seed."""
  config_as_json: records.Record = records.plain(config)
  config_as_json["method"] = records.plain(methods.described(config.method))
  config_as_json["data"] = config.data.described()
  for name in _KEPT_APART:
    del config_as_json[name]
  # Only one of them says how long it was; and lines from before there were
  # epochs name the steps alone.
  del config_as_json["steps" if config.steps is None else "epochs"]
  return records.comparable(
    config_as_json | config.training.described() | config.watching.described()
  )


def parse(arguments: list[str] | None, description: str) -> Config:
  """Reads the command line; the methods are its subcommands.

  "--method NAME" may stand in place of the subcommand NAME.

  Args:
    arguments: By default those of this process.
    description: Of the program, for its help.
  """
  if arguments is None:
    arguments = sys.argv[1:]
  arguments = [
    argument.removeprefix("--method=")
    for argument in arguments
    if argument != "--method"
  ]
  choices = tyro.extras.subcommand_type_from_defaults(
    {name: method() for name, method in methods.METHODS.items()}
  )
  # With the field re-typed, the registry alone decides what can be chosen.
  fields: list[Any] = [("method", Annotated[choices, tyro.conf.arg(name="")])]
  named = next((name for name in arguments if name in methods.METHODS), None)
  if named and hasattr(methods.METHODS[named], "weight_decay"):
    fields.append(_without_weight_decay())
  typed = dataclasses.make_dataclass(
    "Config",
    fields,
    bases=(Config,),
    frozen=True,
  )
  typed.__doc__ = Config.__doc__
  return tyro.cli(
    typed,
    args=arguments,
    prog="python -m experiments.train",
    description=description,
    config=(tyro.conf.CascadeSubcommandArgs,),
  )


def _without_weight_decay() -> tuple[Any, ...]:
  """The field for the recipe, where --weight-decay is the method's own."""
  hidden = Annotated[float | None, tyro.conf.Suppress]
  recipe = dataclasses.make_dataclass(
    "Recipe",
    [("weight_decay", hidden, None)],
    bases=(Recipe,),
    frozen=True,
  )
  recipe.__doc__ = Recipe.__doc__
  typed = Annotated[recipe, tyro.conf.OmitArgPrefixes]
  return "training", typed, dataclasses.field(default_factory=recipe)
