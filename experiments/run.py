"""Runs an experiment of `experiments.configs` on the user's data.

  python -m experiments.run NAME --root DATA --backbone CLIP_OR_VIT
  python -m experiments.run NAME --root DATA --backbone CLIP_OR_VIT \
    --methods gmixout full_finetuning --set gmixout.sparsity=0.8 --seeds 0
  python -m experiments.run NAME --help    what it is, and what DATA must hold

Every case of the experiment, such as a domain left out, is run with every seed
and method; each appends one JSON line to the results file. Methods that share a
run train it once. With --checkpoint DIR a run that was interrupted goes on when
the same command is given again, and SIGTERM saves and stops it.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import rich.console
import rich.progress
import rich.table
import tyro

from experiments import configs, finished, methods
from experiments.case import Config, folder_of, line_of, open_case
from experiments.experiment import Experiment
from experiments.methods.composition import Composed, Pool
from experiments.methods.settings import parse_settings
from experiments.reporting import display_names, records
from experiments.training import compilation_cache
from experiments.training.run_checkpoints import Stopped, stop_on_sigterm
from gmixout_jax.checkpoint.folders import exclusive


def chosen(config: Config, experiment: Experiment) -> list[methods.Method]:
  """The methods to run, with their hyperparameters.

  Raises:
    ValueError: If a name or a setting is not known.
  """
  changes = parse_settings(config.set)
  own = [changed(method, changes) for method in experiment.methods]
  if not config.methods:
    return own
  found = []
  for name in config.methods:
    configured = [m for m in own if methods.name_of(m) == name]
    found += configured or [methods.from_name(name, **changes)]
  return found


def changed(
  method: methods.Method, changes: Mapping[str, Mapping[str, Any]]
) -> methods.Method:
  """The method with other hyperparameters, wherever a name occurs in it.

  Example:
    >>> soup = methods.from_name("gmixout+wise_ft")
    >>> changed(soup, {"gmixout": {"sparsity": 0.5}}).of.sparsity
    0.5
  """
  if isinstance(method, Composed):
    method = dataclasses.replace(method, of=changed(method.of, changes))
  name = methods.name_of(method).split("+")[-1]
  return dataclasses.replace(method, **changes.get(name, {}))


def cases_of(config: Config, experiment: Experiment) -> list[str]:
  """The cases to run.

  Raises:
    ValueError: If no case is called so, or begins so.
  """
  every = experiment.cases(config.root)
  for name in config.cases:
    if not any(case.startswith(name) for case in every):
      raise ValueError(
        f"--cases must name some of {', '.join(every)}; got {name!r}."
      )
  wanted = config.cases or ("",)
  return [case for case in every if case.startswith(tuple(wanted))]


def lines(
  config: Config,
  experiment: Experiment,
  bar: rich.progress.Progress,
  stop: Callable[[int], bool] = lambda step: False,
) -> Iterator[records.Record]:
  """Runs it, line by line; each has been appended when it is yielded."""
  compared = chosen(config, experiment)
  if config.checkpoints is not None:
    paths = finished.find(config.checkpoints)
    compared = [
      dataclasses.replace(m, runs=len(paths)) if isinstance(m, Pool) else m
      for m in compared
    ]
  for case in cases_of(config, experiment):
    for seed in config.seeds or experiment.seeds:
      folder = config.checkpoint and config.checkpoint / folder_of(case, seed)
      opened = None
      for index, method in enumerate(compared):
        own = folder and folder / f"{index:02d}_{methods.name_of(method)}"
        record = records.recall(own) if own else None
        if record is None:
          opened = opened or open_case(
            config, experiment, compared, case, seed, bar, stop
          )
          record = line_of(config, experiment, opened, method)
        _append(config, record, method, own)
        yield record
      for row in list(bar.task_ids):
        bar.remove_task(row)


def _append(
  config: Config,
  record: records.Record,
  method: methods.Method,
  folder: pathlib.Path | None,
) -> None:
  if folder is None:
    records.append(config.results, record)
    return
  folder.mkdir(parents=True, exist_ok=True)
  # What was not asked for is the experiment's own, and as it was.
  asked = {
    "backbone": config.backbone and config.backbone.name,
    "steps": config.steps,
    "batch_size": config.batch_size,
    "image_size": config.image_size,
  }
  ours = record["config"] | {
    "method": records.plain(methods.described(method)),
    "seed": record["seed"],
    **{key: value for key, value in asked.items() if value is not None},
  }
  records.append_once(config.results, record, ours, folder)


def table(results: Sequence[records.Record]) -> rich.table.Table:
  """The numbers that the experiment is about, in percent."""
  view = rich.table.Table(title="in percent")
  for heading in ("case", "method", "seed"):
    view.add_column(heading)
  columns = list(dict.fromkeys(k for r in results for k in _headline(r)))
  for heading in columns:
    view.add_column(heading, justify="right")
  for record in results:
    numbers = _headline(record)
    view.add_row(
      record["config"]["data"],
      display_names.title(record["config"]["method"]["name"]),
      str(record["seed"]),
      *(f"{100 * numbers[k]:.1f}" if k in numbers else "" for k in columns),
    )
  return view


def _headline(record: records.Record) -> dict[str, float]:
  return record["metrics"]["headline"]


def main(config: Config) -> None:
  """Runs an experiment, appends its lines and shows the table."""
  console = rich.console.Console()
  compilation_cache.keep(functools.partial(console.print, soft_wrap=True))
  try:
    experiment = configs.load(config.name)
    if experiment.combines and config.checkpoints is None:
      raise ValueError(
        f"{config.name} combines finished checkpoints: --checkpoints must name"
        " the folder that they are in."
      )
    with contextlib.ExitStack() as stack:
      if config.checkpoint is not None:
        stack.enter_context(exclusive(config.checkpoint))
      stop = stack.enter_context(
        stop_on_sigterm(saves=config.checkpoint is not None)
      )
      bar = stack.enter_context(rich.progress.Progress(console=console))
      results = list(lines(config, experiment, bar, stop))
  except Stopped as stopped:
    console.print(str(stopped))
    return
  except (FloatingPointError, OSError, TypeError, ValueError) as error:
    sys.exit(f"error: {error}")  # what the user gave is wrong, not the program
  console.print(table(results))
  console.print(f"{len(results)} lines are in {config.results}.")


def parse(arguments: Sequence[str] | None = None) -> Config:
  """Reads the command line; after a name, --help says what it stands for."""
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  description = f"{__doc__}\nNAME is one of {', '.join(configs.names())}."
  if arguments and arguments[0] in configs.names():
    description = configs.docstring(arguments[0])
  return tyro.cli(
    Config,
    args=arguments,
    prog="python -m experiments.run",
    description=description,
  )


if __name__ == "__main__":
  main(parse())
