"""Runs a grid of methods, settings and seeds, or an experiment by name.

  python -m experiments.sweep full_finetuning wise_ft greedy_soup diwa gmixout \
    --backbone vit.safetensors --train photos/train --ood night=photos/night \
    --seeds 0 1 2
  python -m experiments.sweep gmixout gmixout+wise_ft \
    --set gmixout.anchor_decay=0,0.3,0.9 wise_ft.alpha=0.3 ...
  python -m experiments.sweep --config imagenet --root DATA --backbone CLIP
  python -m experiments.sweep --config imagenet --help    what DATA must hold

"gmixout+wise_ft" is WiSE-FT on a run of GMixout. Any method that works on other
methods can follow a "+"; alone, it works on full fine-tuning. --set gives
hyperparameters, NAME.FIELD=VALUE, wherever the method occurs; values separated
by commas give every combination. All else is as in `experiments.train`: each
cell (method, settings, task and seed) appends one line, and a cell that has a
line in the results file is not run again. A run that several methods share is
trained once.

--config NAME takes methods, data, length and seeds from experiments/configs
unless flags override them; --cases chooses among its parts.

With --checkpoint DIR interrupted runs are resumed. --workers N runs N cells at
a time in separate processes, with --cluster slurm as jobs there. A cell that
fails does not stop the others; it is reported at the end with its log.
"""

import dataclasses
import functools
import itertools
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from experiments import command_line, configs, methods
from experiments.harness import finished_checkpoints, processes
from experiments.harness.cell import Cell
from experiments.harness.command import Session
from experiments.harness.run import Failure, run
from experiments.harness.stage import Stage, Stages, through
from experiments.methods import Method
from experiments.methods.composition import Pool
from experiments.methods.settings import changed, parse_grid, parts
from experiments.reporting import chosen_rates, figures, tables
from experiments.reporting.entries import group
from experiments.reporting.records import Record
from experiments.run_options import (
  RunOptions,
  check_picture,
  check_seed,
  one_each,
)
from experiments.task_options import TaskOptions
from experiments.tasks.experiment import Experiment, ExperimentImages
from experiments.tasks.task import Task

ALL = "all"

NEED_WORDS = ("flyp", "zero_shot")
"""Methods for backbones with a text tower alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskOptions, RunOptions):
  """A sweep.

  Attributes:
    methods: Names, with "+" between methods that build on each other; "all" are
      the registered ones that the backbone allows. By default those of
      --config.
    config: An experiment by name.
    cases: Names of its parts, or prefixes of them; by default all.
    set: Hyperparameters, NAME.FIELD=VALUE or NAME.FIELD=VALUE,VALUE.
    seeds: PRNG seeds; every method is run with each. By default those of
      --config, or 0.
    checkpoints: A folder of finished checkpoints, as --export writes them, for
      an experiment that combines them instead of training.
    workers: Number of processes that run cells; 0 runs all cells in this one.
    cluster: Where they run: on this machine, or on a Slurm cluster.
    partition: Of Slurm.
    minutes: After so many no further cell is begun; by default there is no end.
    picture: Where to draw OOD against ID accuracy, if at all.
    choose: Show each method at one of the learning rates that --set gave it:
      the smallest whose validation accuracy is within one standard error of the
      best. All of them are run and have lines.

  Raises:
    ValueError: If there are both steps and epochs.
  """

  methods: tyro.conf.Positional[tuple[str, ...]] = ()
  config: str | None = None
  cases: tuple[str, ...] = ()
  set: tuple[str, ...] = ()
  seeds: tuple[int, ...] = ()
  checkpoints: pathlib.Path | None = None
  workers: int = 0
  cluster: processes.Cluster = "local"
  partition: str | None = None
  minutes: float = float("inf")
  picture: pathlib.Path | None = None
  choose: bool = False


def chosen(config: Config, own: Sequence[Method] = ()) -> list[Method]:
  """The methods of a sweep, with every combination of settings.

  Args:
    config: The sweep.
    own: Those of an experiment, with its hyperparameters; others that are named
      have their defaults.

  Raises:
    ValueError: If there are none, or a name or a setting is not known.
  """
  grid = parse_grid(config.set)
  names = list(config.methods)
  if ALL in names:
    # The demo has a CLIP of its own, and compares what needs one.
    with_words = any(methods.name_of(m) in NEED_WORDS for m in own)
    if config.backbone is not None:
      with_words = config.backbone.is_dir()
    every = [n for n in methods.METHODS if with_words or n not in NEED_WORDS]
    at = names.index(ALL)
    names = list(dict.fromkeys([*names[:at], *every, *names[at + 1 :]]))
  if not names and not own:
    raise ValueError(
      f"which methods? Some of {', '.join(methods.METHODS)}; or {ALL}."
    )
  found = list(own)
  if names:
    found = []
    for name in names:
      configured = [m for m in own if methods.name_of(m) == name]
      found += configured or [methods.from_name(name)]
  unused = [
    name
    for name in dict.fromkeys(name for settings in grid for name in settings)
    if not any(name in parts(method) for method in found)
  ]
  if unused:
    raise ValueError(
      f"--set {unused[0]}.… changes nothing: the methods are"
      f" {', '.join(map(methods.name_of, found))}."
    )
  tried = [changed(m, settings) for m in found for settings in grid]
  # What a setting does not touch is run once.
  return list({repr(methods.described(one)): one for one in tried}.values())


def stages_of(config: Config, started: Session) -> Stages:
  """What is run, in order.

  Raises:
    FileNotFoundError: If a file is not there.
    ValueError: If flags do not go together, or name what there is not.
  """
  for seed in config.seeds:
    check_seed(seed)
  if config.config is not None and config.data is not None:
    raise ValueError(
      f"--config {config.config} has data of its own, got --data {config.data}."
    )
  if config.config is None:
    if config.cases or config.checkpoints:
      raise ValueError("--cases and --checkpoints belong to a --config.")
    return _once(config, [config.task()], chosen(config), config.seeds or (0,))
  found = configs.load(config.config)
  _refuse(config, found)
  if hasattr(found, "stages"):
    if config.methods or config.set:
      raise ValueError(
        f"--config {config.config} has methods and settings of its own, got"
        f" {' '.join([*config.methods, *config.set])}."
      )
    if config.picture is not None:
      raise ValueError(
        f"--config {config.config} writes several files, got --picture"
        f" {config.picture}: experiments.report draws them."
      )
    if config.watching.patience is not None:
      raise ValueError(
        f"--config {config.config} compares runs of one length, got --patience"
        f" {config.watching.patience}."
      )
    return found.stages(config, config.cases, config.seeds, started.display.say)
  seeds = config.seeds or found.seeds
  compared = chosen(config, found.methods)
  if not isinstance(found, Experiment):
    return _once(config, found.tasks(config), compared, seeds)
  if found.combines:
    return _combined(config, found, compared, seeds)
  tasks = [
    config.case_of(found, config.config, case) for case in _cases(config, found)
  ]
  return _once(config, tasks, compared, seeds)


def _refuse(config: Config, found: Any) -> None:
  """Flags that the config has no use for.

  Raises:
    ValueError: If there is one; it is named.
  """
  combines = isinstance(found, Experiment) and found.combines
  if config.checkpoints is not None and not combines:
    raise ValueError(
      f"--checkpoints has no meaning for {config.config}, which trains; got"
      f" {config.checkpoints}."
    )
  has_cases = isinstance(found, Experiment) or hasattr(found, "stages")
  if config.cases and not has_cases:
    raise ValueError(
      f"--cases has no meaning for {config.config}, which has one task; got"
      f" {' '.join(config.cases)}."
    )


def _once(
  config: Config,
  tasks: Sequence[Task],
  compared: Sequence[Method],
  seeds: Sequence[int],
) -> Stages:
  ending = config.watching.described()
  yield Stage(
    [
      Cell(task, method, seed, ending)
      for task in tasks
      for seed in seeds
      for method in compared
    ]
  )


def _combined(
  config: Config,
  experiment: Experiment,
  compared: Sequence[Method],
  seeds: Sequence[int],
) -> Stages:
  assert config.config is not None
  if config.checkpoints is None or config.root is None:
    raise ValueError(
      f"{config.config} combines finished checkpoints: --checkpoints must name"
      f" the folder that they are in, and --root that of the data; got"
      f" {config.checkpoints} and {config.root}."
    )
  config.refuse_all_but("root", "image_size", "mean", "std")
  size = config.image_size or experiment.view.size
  view = dataclasses.replace(experiment.view, size=size)
  tasks = [
    finished_checkpoints.Combining(
      ExperimentImages(experiment, config.config, config.root, case),
      config.checkpoints,
      view,
      config.mean,
      config.std,
      experiment.headline_of,
    )
    for case in _cases(config, experiment)
  ]
  count = len(finished_checkpoints.find(config.checkpoints))
  compared = [
    dataclasses.replace(m, runs=count) if isinstance(m, Pool) else m
    for m in compared
  ]
  return _once(config, tasks, compared, seeds)


def _cases(config: Config, experiment: Experiment) -> list[str]:
  """The cases to run.

  Raises:
    ValueError: If no case is called so, or begins so.
  """
  if config.root is None:
    raise ValueError(f"--root must name the folder of {config.config}'s data.")
  every = experiment.cases(config.root)
  for name in config.cases:
    if not any(case.startswith(name) for case in every):
      raise ValueError(
        f"--cases must name some of {', '.join(every)}; got {name!r}."
      )
  wanted = config.cases or ("",)
  return [case for case in every if case.startswith(tuple(wanted))]


def main(config: Config) -> None:
  """Runs the sweep, appends its lines and shows the tables."""
  failures: list[Failure] = []
  with config.session() as started:
    if config.workers < 0 or (config.workers and config.checkpoint is None):
      raise ValueError(
        "workers must be 0, or a number of processes with a folder to save"
        f" them in, got {config.workers} and --checkpoint {config.checkpoint}."
      )
    if not config.minutes >= 0:
      raise ValueError(f"--minutes must be at least 0, got {config.minutes}.")
    if config.partition is not None and config.cluster != "slurm":
      raise ValueError(f"--partition {config.partition} needs --cluster slurm.")
    if config.picture is not None:
      check_picture(config.picture)
    if config.workers and config.distributed:
      raise ValueError(
        "--workers are processes of their own, and --distributed makes one run"
        f" of several: give one of them, got {config.workers} and True."
      )
    if config.cluster != "local" and not config.workers:
      raise ValueError(
        f"--cluster {config.cluster} needs --workers, the jobs at a time."
      )
    places = config.places(
      deadline=time.monotonic() + 60 * config.minutes, stop=started.stop
    )
    work: Any = functools.partial(run, failures=failures)
    if config.workers:
      workers = processes.Workers(
        config.workers, config.cluster, config.partition
      )
      work = functools.partial(
        processes.spread, workers=workers, failures=failures
      )

    def work_into(cells: Sequence[Cell], path: pathlib.Path) -> list[Record]:
      there = dataclasses.replace(places, results=path)
      return work(cells, there, started.display)

    stages = stages_of(config, started)
    with started.display.shown():
      lines, missing = through(stages, config.results, work_into)
    if not started.console.quiet:
      _show(config, lines, missing, failures, started)
  if failures:
    sys.exit(f"error: {len(failures)} cells failed.")


def _show(
  config: Config,
  lines: Mapping[pathlib.Path, Sequence[Record]],
  missing: Mapping[pathlib.Path, int],
  failures: Sequence[Failure],
  started: Session,
) -> None:
  for own in lines.values():
    for table in tables.by_task(own, choose=config.choose):
      started.console.print(table)
    if config.choose:
      none = ["Nothing was chosen: no method ran at several learning rates."]
      for sentence in chosen_rates.sentences(own) or none:
        started.display.say(sentence)
  for path, own in lines.items():
    started.display.say(f"{len(own)} lines are in {path}.")
  for path, count in missing.items():
    started.display.say(
      f"{count} lines are missing in {path}: the same command goes on there."
    )
  for failure in failures:
    end = failure.log.read_text().strip().splitlines()[-1:]
    started.display.say(
      " ".join([f"failed: {failure.title}, see {failure.log}", *end])
    )
  drawn = [line for own in lines.values() for line in own]
  if config.picture is not None and drawn:
    entries = [entry for entry in group(drawn) if entry.has_targets]
    if not entries:
      raise ValueError(
        f"nothing was tested out of distribution, which --picture"
        f" {config.picture} was to show."
      )
    figures.ood_against_id(entries).savefig(config.picture)
    started.display.say(f"The picture is {config.picture}.")


def parse(arguments: Sequence[str] | None = None) -> Config:
  """Reads the command line; with --config, --help says what it stands for."""
  arguments = one_each(sys.argv[1:] if arguments is None else arguments)
  description = f"{__doc__}\nNAME is one of {', '.join(configs.names())}."
  words = itertools.chain(*(word.split("=", 1) for word in arguments))
  for flag, name in itertools.pairwise(words):
    if flag == "--config" and name in configs.names():
      description = configs.docstring(name)
  return command_line.parse(
    Config,
    args=arguments,
    prog="python -m experiments.sweep",
    description=description,
  )


if __name__ == "__main__":
  main(parse())
