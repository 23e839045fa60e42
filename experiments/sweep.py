"""Runs many methods on one domain; methods that share a run train it once.

  python -m experiments.sweep full_finetuning wise_ft greedy_soup diwa gmixout \
    --data.root PACS --weights vit.safetensors --seeds 0 1 2
  python -m experiments.sweep gmixout gmixout+wise_ft gmixout+uniform_soup \
    --set gmixout.resample_every=20 uniform_soup.runs=3 ...
  python -m experiments.sweep all ...

"gmixout+wise_ft" is WiSE-FT on a run of GMixout, and anything that works on
other methods can follow a "+". Alone, such a method works on full fine-tuning.
--set gives hyperparameters, NAME.FIELD=VALUE, wherever the method occurs; all
else is as in `experiments.train`, whose lines these are, one per method and
seed.

With --checkpoint DIR a sweep that was interrupted goes on: its finished cells,
one per method and seed, are not run again. --workers N runs N cells at a time,
in processes of their own that share no runs, but go on in the middle; with
--cluster slurm as jobs there. A cell that fails does not stop the others; it is
reported at the end, with its log.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated

import rich.console
import rich.progress
import tyro

from experiments import methods, train
from experiments.cells import Cluster, Failure, logged, name_of, spread
from experiments.data.split import Split
from experiments.methods.settings import parse_settings
from experiments.models import backbones
from experiments.models.classifier import Classifier
from experiments.reporting import records, tables
from experiments.tasks import length
from experiments.tasks.recipe import Recipe
from experiments.training import compilation_cache
from experiments.training.runs import Runs
from experiments.training.sharding import Sharding
from experiments.training.watching import Watching
from gmixout_jax import clip
from gmixout_jax.checkpoint.folders import exclusive

ALL = "all"


@dataclasses.dataclass(frozen=True)
class Config:
  """A sweep.

  Attributes:
    methods: Names, with "+" between those that work on each other; "all" are
      the registered ones that this model allows.
    set: Hyperparameters, NAME.FIELD=VALUE.
    data: What to train on.
    weights: The pretrained ViT: safetensors with timm's names.
    mean: Of the pixels the ViT was trained on, per channel, in [0, 1].
    std: Likewise.
    remat: Recompute each block in the backward pass.
    dtype: What the model computes in; what is stored is float32.
    attention: "cudnn" needs an NVIDIA GPU since Ampere, and bfloat16.
    steps: Optimizer steps of a run; 300 if there are no epochs either.
    epochs: The length of a run instead; the last one is filled up.
    warmup: The share of the steps in which the learning rate rises.
    seeds: Of everything random; every method is run with each.
    results: The file that the lines are appended to.
    checkpoint: A folder to remember finished cells in, and to save running ones
      if there are workers.
    save_every: Steps between two checkpoints, if there are workers.
    sharding: Spread each batch over all devices; see `experiments.train`.
    workers: Cells at a time, in processes of their own; 0 runs all of them
      here, one after another.
    cluster: Where the workers are: on this machine, or on a Slurm cluster.
    partition: Of Slurm.
    training: What a step does that is no part of a method.
    watching: What is seen of the runs on the way.

  Raises:
    ValueError: If there are both steps and epochs.
  """

  methods: tyro.conf.Positional[tuple[str, ...]]
  set: tuple[str, ...] = ()
  data: train.Data = dataclasses.field(default_factory=train.Data)
  weights: pathlib.Path = pathlib.Path("data/vit_tiny.safetensors")
  mean: tuple[float, float, float] = clip.HALF
  std: tuple[float, float, float] = clip.HALF
  remat: bool = False
  dtype: backbones.Dtype = "float32"
  attention: backbones.Attention = "xla"
  steps: int | None = None
  epochs: float | None = None
  warmup: float = 0.1
  seeds: tuple[int, ...] = (0,)
  results: pathlib.Path = pathlib.Path("runs/results.jsonl")
  checkpoint: pathlib.Path | None = None
  save_every: int = 100
  sharding: Sharding | None = None
  workers: int = 0
  cluster: Cluster = "local"
  partition: str | None = None
  training: Annotated[Recipe, tyro.conf.OmitArgPrefixes] = dataclasses.field(
    default_factory=Recipe
  )
  watching: Annotated[Watching, tyro.conf.OmitArgPrefixes] = dataclasses.field(
    default_factory=Watching
  )

  def __post_init__(self):
    length.check(self.steps, self.epochs)


def chosen(config: Config) -> list[methods.Method]:
  """The methods of a sweep.

  Raises:
    ValueError: If there are none, or a name or a setting is not known.
  """
  names = list(config.methods)
  if ALL in names:
    # FLYP needs a text tower, which a ViT does not have.
    every = [name for name in methods.METHODS if name != "flyp"]
    at = names.index(ALL)
    names = list(dict.fromkeys([*names[:at], *every, *names[at + 1 :]]))
  if not names:
    raise ValueError(
      f"which methods? Some of {', '.join(methods.METHODS)}; or {ALL}."
    )
  changes = parse_settings(config.set)
  return [methods.from_name(name, **changes) for name in names]


def configurations(
  config: Config, swept: Sequence[methods.Method], seed: int
) -> list[train.Config]:
  """What `experiments.train` would be told for each method."""
  known = {field.name for field in dataclasses.fields(train.Config)}
  shared = {
    field.name: getattr(config, field.name)
    for field in dataclasses.fields(config)
    if field.name in known
  }
  cells = [train.Config(method=m, seed=seed, **shared) for m in swept]
  return [
    dataclasses.replace(
      cell,
      checkpoint=config.checkpoint and config.checkpoint / name_of(cell),
      watching=_in_folders(config.watching, name_of(cell)),
    )
    for cell in cells
  ]


def _in_folders(watching: Watching, name: str) -> Watching:
  """The same, with folders of its own."""
  return dataclasses.replace(
    watching,
    log_dir=watching.log_dir and watching.log_dir / name,
    profile=watching.profile and watching.profile / name,
  )


Outcome = tuple[list[records.Record], list[Failure]]


def in_turn(
  config: Config,
  swept: Sequence[methods.Method],
  domains: dict[str, Split],
  model: Classifier,
  bar: rich.progress.Progress,
) -> Outcome:
  """Runs the cells here, one after another; those of a seed share runs."""
  lines, failures = [], []
  logs = config.checkpoint or config.results.parent / "failed"
  for seed in config.seeds:
    planned = configurations(config, swept, seed)
    task = bar.add_task(f"seed {seed}", total=None)

    def progress(member, step, loss, task=task, seed=seed):
      del step, loss
      name = methods.name_of(member.method)
      bar.update(task, advance=1, description=f"seed {seed}: {name}")

    # Cells here share runs, so the logs are those of runs.
    folders = _in_folders(config.watching, f"seed{seed}")
    watched = dataclasses.replace(planned[0], watching=folders)
    runs = Runs(
      train.task_of(planned[0], domains, model),
      swept,
      progress=progress,
      mesh=train.mesh_of(planned[0]),
      sharding=config.sharding or "data",
      watch=train.watch_of(watched, domains, say=bar.console.print),
    )
    bar.update(task, total=runs.task.steps * len(runs.planned))
    for one in planned:
      with logged(name_of(one), logs) as failed:
        known = one.checkpoint and records.recall(one.checkpoint)
        record = known or train.record(one, runs, domains)
        if one.checkpoint is not None:
          one.checkpoint.mkdir(parents=True, exist_ok=True)
        train.note(one, record)
        lines.append(record)
      failures += failed
    bar.remove_task(task)
  return lines, failures


def side_by_side(
  config: Config,
  swept: Sequence[methods.Method],
  bar: rich.progress.Progress,
) -> Outcome:
  """Runs the cells in processes of their own."""
  assert config.checkpoint is not None
  cells = [
    one for seed in config.seeds for one in configurations(config, swept, seed)
  ]
  task = bar.add_task("cells", total=len(cells))
  return spread(
    cells,
    workers=config.workers,
    folder=config.checkpoint / "jobs",
    cluster=config.cluster,
    partition=config.partition,
    ended=lambda name: bar.update(task, advance=1, description=name),
  )


def main(config: Config) -> None:
  """Runs the sweep, appends its lines and shows the tables."""
  console = rich.console.Console()
  if not config.workers:  # those see to it themselves
    compilation_cache.keep(functools.partial(console.print, soft_wrap=True))
  try:
    swept = chosen(config)
    if not config.seeds:
      raise ValueError("seeds must be one or more numbers, got none.")
    if config.workers < 0 or (config.workers and config.checkpoint is None):
      raise ValueError(
        "workers must be 0, or a number of processes with a folder to save"
        f" them in, got {config.workers} and --checkpoint {config.checkpoint}."
      )
    with contextlib.ExitStack() as stack:
      if config.checkpoint is not None:
        stack.enter_context(exclusive(config.checkpoint))
      if config.workers:
        bar = stack.enter_context(rich.progress.Progress(console=console))
        lines, failures = side_by_side(config, swept, bar)
      else:
        with console.status("reading images and weights"):
          first = configurations(config, swept[:1], config.seeds[0])[0]
          domains, model = train.load(first)
        bar = stack.enter_context(rich.progress.Progress(console=console))
        lines, failures = in_turn(config, swept, domains, model, bar)
  except (OSError, TypeError, ValueError) as error:
    sys.exit(f"error: {error}")  # what the user gave is wrong, not the program
  if lines:
    console.print(tables.by_set(lines))
    console.print(tables.by_method(lines))
    console.print(tables.by_cost(lines))
  console.print(f"{len(lines)} lines are in {config.results}.")
  for failure in failures:
    end = failure.log.read_text().strip().splitlines()[-1:]
    console.print(f"failed: {failure.name}, see {failure.log}", *end)
  if failures:
    sys.exit(f"error: {len(failures)} cells failed.")


if __name__ == "__main__":
  main(tyro.cli(Config, description=__doc__))
