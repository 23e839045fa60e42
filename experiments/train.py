"""Fine-tunes a pretrained model, and evaluates it in and out of distribution.

  python -m experiments.train gmixout --backbone CLIP_OR_VIT \
    --train photos/train --val photos/val --ood night=photos/night
  python -m experiments.train gmixout --backbone vit.safetensors \
    --data pacs --root PACS --source sketch
  python -m experiments.train full_finetuning --learning-rate 3e-5 ...
  python -m experiments.train --help
  python -m experiments.train gmixout --help

--train, --val and --ood name folders of class folders,
<folder>/<class>/<image>, or CSVs with the columns file and label; classes are
matched by name. --data pacs (or vlcs, domainbed, ...) is a folder in
DomainBed's layout, <root>/<domain>/<class>/<image>: --source names the one
domain to train on, or --target the one to leave out. --data imagenet is the
experiment of that name, with its batch size, length and prompts.

A run appends one JSON line to the results file: configuration, seed, versions,
device and metrics. A run that has a line in the file is not run again.

To use several devices of one machine, add --sharding data, or --sharding fsdp
to shard weights and moments too. On several machines run the same command in
each process with --distributed; --coordinator HOST:PORT, --processes and
--process are needed unless the cluster provides them. Each process reads its
own part of every batch, and only the first one writes. The checkpoint folder is
shared; a run may be resumed on other devices.

The seed decides which images are held out, their order, their augmentation and
the masks, so runs that differ only in the method are paired.

  python -m experiments.train gmixout --epochs 10 --mixup 0.2 --clip-norm 1 \
    --eval-every 500 --patience 5 --log-dir runs/log ...

With --patience a run may end early, and the result is its best weights on ID
validation images. OOD images decide nothing, evaluated on the way or not.
"""

import dataclasses
import itertools
import sys
from typing import Annotated, Any

import rich.table
import tyro
from rich.markup import escape

from experiments import command_line, methods
from experiments.harness.cell import Cell
from experiments.harness.command import Session
from experiments.harness.run import run
from experiments.models import backbones, export
from experiments.reporting import display_names, records
from experiments.reporting.entries import task_of
from experiments.run_options import RunOptions, check_seed, one_each
from experiments.task_options import TaskOptions
from experiments.tasks.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskOptions, RunOptions):
  """One run.

  Attributes:
    method: The method.
    seed: The PRNG seed.
    full_finetuning_lr: The peak learning rate of full fine-tuning on this data,
      if known: GMixout warns if its own is far from the rule of thumb.
  """

  method: methods.Method
  seed: int = 0
  full_finetuning_lr: float | None = None

  def cell(self) -> Cell:
    """What is run; errors as of `task`."""
    check_seed(self.seed)
    if self.backbone is not None and self.export is not None:
      written = [path.resolve() for path in export.places(self.export)]
      if self.backbone.resolve() in written:
        raise ValueError(f"--export {self.export} would replace --backbone.")
      if self.backbone.exists():
        export.check(self.export, to_folder=backbones.is_clip(self.backbone))
    return Cell(self.task(), self.method, self.seed, self.watching.described())


def main(config: Config) -> None:
  """Runs one configuration, appends its line and shows the table."""
  with config.session() as started:
    known = config.full_finetuning_lr
    if known is not None and not started.console.quiet:
      config.method.check_learning_rate(known)
    places = config.places(one=True, stop=started.stop)
    with started.display.shown():
      (line,) = run([config.cell()], places, started.display)
    if not started.console.quiet:
      _show(config, line, started)


def _show(config: Config, line: records.Record, started: Session) -> None:
  say = started.display.say
  started.console.print(table(line))
  stats, seconds = line["stats"], line["seconds"]
  say(
    f"{stats['runs']} runs, {stats['steps_per_second']:.2f} steps/s,"
    f" {stats['changed_parameters']:,} weights per step,"
    f" {stats['trained_parameters']:,} over a run,"
    f" {stats['optimizer_bytes'] / 2**20:.1f} MiB of optimizer state,"
    f" {stats['reduced_bytes'] / 2**20:.1f} MiB of gradients,"
    f" {stats['step_flops'] / 1e9:.1f} GFLOPs and"
    f" {stats['step_peak_bytes'] / 2**20:.0f} MiB at most a step,"
    f" {stats['forward_passes']} forward passes per image;"
    f" {seconds['evaluate']:.0f} s of evaluation. Its line is in"
    f" {config.results}."
  )
  if line["progress_bound"] < 1:
    say(f"The progress bound of the run is {line['progress_bound']:.3f}.")
  if config.export is not None and stats["forward_passes"] > 1:
    say(
      f"Nothing was exported to {config.export}: an ensemble is"
      f" {stats['forward_passes']} models."
    )


def table(record: records.Record) -> rich.table.Table:
  """The accuracies of a run, in percent."""
  config, metrics = record["config"], record["metrics"]
  method = display_names.title(config["method"]["name"])
  title = f"{method} on {task_of(config)}, seed {record['seed']}: accuracy (%)"
  # As wide as its title, which one column would break into many lines.
  view = rich.table.Table(title=escape(title), min_width=len(title))
  # Pairs, as an OOD set may have the name of another column.
  columns = [("ID", metrics["id"]), *metrics["ood"].items()]
  if metrics["ood"]:
    columns.append(("mean OOD", metrics["mean_ood"]))
    columns.append(("worst OOD", metrics["worst_ood"]))
  for name, _ in columns:
    view.add_column(escape(name), justify="right")
  view.add_row(*(f"{100 * value:.1f}" for _, value in columns))
  return view


def parse(arguments: list[str] | None = None) -> Config:
  """Reads the command line; the methods are its subcommands.

  "--method NAME" may stand in place of the subcommand NAME.

  Args:
    arguments: By default those of this process.
  """
  if arguments is None:
    arguments = sys.argv[1:]
  arguments = [
    argument.removeprefix("--method=")
    for argument in one_each(arguments)
    if argument != "--method"
  ]
  choices = tyro.extras.subcommand_type_from_defaults(
    {name: method() for name, method in methods.METHODS.items()}
  )
  # With the field re-typed, the registry alone decides what can be chosen.
  fields: list[Any] = [("method", Annotated[choices, tyro.conf.arg(name="")])]
  named = _named(arguments)
  if named and hasattr(methods.METHODS[named], "weight_decay"):
    fields.append(_without_weight_decay())
  typed = dataclasses.make_dataclass(
    "Config", fields, bases=(Config,), frozen=True, kw_only=True
  )
  typed.__doc__ = Config.__doc__
  return command_line.parse(
    typed,
    args=arguments,
    prog="python -m experiments.train",
    description=__doc__,
    config=(tyro.conf.CascadeSubcommandArgs,),
  )


def _named(arguments: list[str]) -> str | None:
  """The method that is meant; not one that a folder is called like."""
  found = [name for name in arguments if name in methods.METHODS]
  apart = [
    name
    for before, name in itertools.pairwise(["", *arguments])
    if name in methods.METHODS and not before.startswith("--")
  ]
  return next(iter([*apart, *found]), None)


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


if __name__ == "__main__":
  main(parse())
