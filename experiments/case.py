"""One case of an experiment with one seed: opened, trained, measured."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich.progress
import tyro
from flax import nnx

from experiments import evaluate, finished, methods
from experiments.data.images import ImageSet
from experiments.data.source import Source
from experiments.experiment import Experiment, Opened
from experiments.line import Outcomes, line
from experiments.models import backbones, export, probe
from experiments.models.classifier import Classifier, Ensemble
from experiments.reporting import display_names, records
from experiments.training.runs import Runs, Saving, Task
from gmixout_jax import parallel


@dataclasses.dataclass(frozen=True)
class Config:
  """Where an experiment's files lie, and what of it to run.

  Attributes:
    name: Of the experiment.
    root: The folder of its data.
    backbone: What to start from: a Hugging Face CLIP folder, or a ViT in
      safetensors with timm's names.
    checkpoints: A folder of finished checkpoints, as --export writes them, for
      methods that combine some instead of training.
    methods: Names; by default the experiment's own. Those of its own have its
      hyperparameters, others their defaults.
    set: Hyperparameters, NAME.FIELD=VALUE.
    cases: Which of its cases, or the beginnings of their names; by default all.
    seeds: By default the experiment's own.
    steps: Optimizer steps, instead of the experiment's own.
    batch_size: Images per step, instead of the experiment's own.
    image_size: Side of the images, instead of the experiment's own.
    mean: Of the pixels the backbone was trained on, per channel, in [0, 1]; by
      default CLIP's for a CLIP and 0.5 for a ViT.
    std: Likewise.
    spread: Spread each batch over the devices of this machine.
    results: The file that the lines are appended to.
    checkpoint: A folder to save the runs in.
    save_every: Steps between two checkpoints.
    export: A folder for the classifiers, one per case, method and seed.
  """

  name: tyro.conf.Positional[str]
  root: pathlib.Path
  backbone: pathlib.Path | None = None
  checkpoints: pathlib.Path | None = None
  methods: tuple[str, ...] = ()
  set: tuple[str, ...] = ()
  cases: tuple[str, ...] = ()
  seeds: tuple[int, ...] = ()
  steps: int | None = None
  batch_size: int | None = None
  image_size: int | None = None
  mean: tuple[float, float, float] | None = None
  std: tuple[float, float, float] | None = None
  spread: bool = False
  results: pathlib.Path = pathlib.Path("runs/results.jsonl")
  checkpoint: pathlib.Path | None = None
  save_every: int = 500
  export: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Case:
  """A case with a seed, opened.

  Attributes:
    name: Of the case.
    seed: Of everything random.
    opened: The sets.
    runs: Where outcomes come from.
    described: All that the numbers depend on but for seed and method; JSON.
  """

  name: str
  seed: int
  opened: Opened
  runs: Outcomes
  described: records.Record


def folder_of(case: str, seed: int) -> str:
  """What its files are called.

  Example:
    >>> folder_of("eurosat/rgb", 1)
    'eurosat_rgb-seed1'
  """
  return f"{re.sub(r'[^A-Za-z0-9]+', '_', case)}-seed{seed}"


def open_case(
  config: Config,
  experiment: Experiment,
  compared: Sequence[methods.Method],
  case: str,
  seed: int,
  bar: rich.progress.Progress,
  stop: Callable[[int], bool],
) -> Case:
  """Opens the data and loads what training starts from."""
  view = dataclasses.replace(
    experiment.view, size=config.image_size or experiment.view.size
  )
  opened = experiment.open(config.root, view, case, seed)
  batch_size = config.batch_size or opened.batch_size or experiment.batch_size
  steps = config.steps or experiment.length(opened, batch_size)
  described = {
    "data": config.name if case == "all" else f"{config.name}/{case}",
    "image_size": view.size,
  }
  pixels = {"mean": config.mean, "std": config.std}
  # Only what was given, so that lines compare with those from before.
  described |= {k: list(v) for k, v in pixels.items() if v is not None}
  look = pixels | {"image_size": view.size}
  if config.checkpoints is not None:
    found = finished.find(config.checkpoints)
    named = [finished.name_of(path) for path in found]
    ready = finished.Finished(found, opened.source.validation, **look)
    return Case(case, seed, opened, ready, described | {"checkpoints": named})
  described |= {
    "backbone": config.backbone.name if config.backbone else None,
    "batch_size": batch_size,
    "steps": steps,
    "warmup": experiment.warmup,
  }
  task = Task(
    model=_start(config, experiment, opened, seed, look),
    source=opened.source,
    steps=steps,
    batch_size=batch_size,
    warmup=experiment.warmup,
    balanced=opened.balanced,
    seed=seed,
  )
  saving = None
  if config.checkpoint is not None:
    saving = Saving(
      config.checkpoint / folder_of(case, seed) / "runs",
      every=config.save_every,
      config=described | {"seed": seed},
      stop=stop,
    )
  row = bar.add_task(f"{case}, seed {seed}", total=None)

  def progress(member: methods.Member, step: int, loss: float) -> None:
    del step
    name = display_names.title(methods.name_of(member.method))
    bar.update(
      row, advance=1, description=f"{case}, seed {seed}: {name}, {loss:.3f}"
    )

  mesh = parallel.data_mesh() if config.spread else None
  runs = Runs(task, compared, progress=progress, saving=saving, mesh=mesh)
  bar.update(row, total=steps * len(runs.planned))
  return Case(case, seed, opened, runs, described)


def _start(
  config: Config,
  experiment: Experiment,
  opened: Opened,
  seed: int,
  look: Mapping[str, Any],
) -> Classifier:
  """The backbone under a head that works, which all methods share."""
  if config.backbone is None:
    raise ValueError(
      "--backbone must name a Hugging Face CLIP folder, or a ViT in safetensors"
      " with timm's names."
    )
  train = opened.source.train
  model = backbones.load(
    config.backbone,
    classes=len(train.class_names),
    words=opened.words,
    templates=experiment.templates,
    own_head=experiment.own_head,
    remat=experiment.remat,
    **look,
  )
  if not probe.is_blank(model):
    return model
  assert isinstance(train, ImageSet)
  some = probe.some_of_each(train, experiment.probe_images, seed=seed)
  return probe.fit_head(model, Source(some, opened.source.validation))


def line_of(
  config: Config, experiment: Experiment, case: Case, method: methods.Method
) -> records.Record:
  """The line of one method."""
  opened = case.opened
  counts = None
  if experiment.long_tail:
    assert isinstance(opened.source.train, ImageSet)
    counts = opened.source.train.counts().sum(axis=0)

  def measure(model: nnx.Module) -> records.Record:
    found = evaluate.evaluate(
      model,
      opened.source.validation if opened.test is None else opened.test,
      opened.targets,
      train_counts=counts,
      by_domain=opened.balanced,
    )
    if opened.test is not None:
      found["validation"] = evaluate.accuracy(
        model, opened.source.validation, batch_size=256
      )
    return found | {"headline": experiment.headline(found)}

  def save(model: nnx.Module) -> None:
    # An ensemble is several models, and no file of one format holds them.
    if config.export is not None and not isinstance(model, Ensemble):
      name = f"{methods.name_of(method)}_{folder_of(case.name, case.seed)}"
      export.save(model, config.export / name)

  described = {
    "method": records.plain(methods.described(method)),
    **case.described,
  }
  return line(described, case.seed, case.runs, method, measure, save)
