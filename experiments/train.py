"""Fine-tunes a pretrained ViT on one domain and evaluates it on all of them.

  python -m experiments.train gmixout --data.root PACS --weights vit.safetensors
  python -m experiments.train gmixout --data.target sketch ...
  python -m experiments.train full_finetuning --learning-rate 3e-5 ...
  python -m experiments.train --help
  python -m experiments.train gmixout --help

PACS is any folder in DomainBed's layout, <root>/<domain>/<class>/<image>; with
--data.target the named domain is left out and all others train. The weights are
a ViT in safetensors with timm's names, such as
vit_tiny_patch16_224.augreg_in21k_ft_in1k. One run appends one JSON line to the
results file: configuration, seed, versions, device and metrics.

The defaults suit two CPU cores: 96 pixels, 300 steps of 32 images. A GPU runs
the same command at full size: add --data.image-size 224 --data.batch-size 128
--steps 2000.

On several devices of one machine add --sharding data, or --sharding fsdp if
weights and moments shall be spread over them, too. On several machines each
process runs the same command with --distributed besides; --coordinator
HOST:PORT, --processes and --process say who is who where the cluster does not.
Each reads its own part of every batch, and the first one alone writes. The
checkpoint's folder is shared; a run may go on with other devices.

The seed decides which images are held out, their order, their augmentation and
the masks, so runs that differ in the method alone are paired.

  python -m experiments.train gmixout --epochs 10 --mixup 0.2 --clip-norm 1 \
    --eval-every 500 --patience 5 --log-dir runs/log ...

With --patience a run may end early, and its best weights on ID validation
images are the result. OOD images decide nothing, whether watched or not.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Mapping

import jax
import rich.console
import rich.progress
import rich.table
from flax import nnx

from experiments import methods, train_config
from experiments.data.split import Split
from experiments.domains import Data as Data
from experiments.evaluate import Progress, evaluate
from experiments.line import line
from experiments.models import backbones, export
from experiments.models.classifier import Classifier, Ensemble
from experiments.reporting import records
from experiments.tasks import length
from experiments.train_config import Config, described
from experiments.training import compilation_cache, peers, watching
from experiments.training.run_checkpoints import Stopped, stop_on_sigterm
from experiments.training.runs import Runs, Saving, Task, Watch
from gmixout_jax import parallel
from gmixout_jax.checkpoint.folders import exclusive


def load(config: Config) -> tuple[dict[str, Split], Classifier]:
  """Reads the domains and the pretrained model; the errors say what is wanted.

  Raises:
    FileNotFoundError: If the data or the weights are not there.
    ValueError: If the source or target is not one of the domains, or is the
      only one; or the attention cannot be computed here.
  """
  # Before anything is read, which may take minutes.
  backbones.check(dtype=config.dtype, attention=config.attention)
  if not config.weights.is_file():
    raise FileNotFoundError(
      f"no weights at {config.weights}: --weights must name a ViT in"
      " safetensors with timm's names."
    )
  domains = config.data.read()
  model = backbones.from_timm(
    config.weights,
    len(next(iter(domains.values())).class_names),
    image_size=config.data.image_size,
    remat=config.remat,
    dtype=config.dtype,
    attention=config.attention,
    mean=config.mean,
    std=config.std,
  )
  return domains, model


def run(
  config: Config,
  domains: dict[str, Split],
  model: Classifier,
  progress: Callable[[int, float], None] | None = None,
  stop: Callable[[int], bool] = lambda step: False,
  evaluated: Callable[[Mapping[str, float]], None] | None = None,
  say: Callable[[str], None] | None = None,
  evaluating: Progress = lambda name, done, total: None,
) -> records.Record:
  """Trains and evaluates; pure but for the time it takes and its checkpoints.

  Args:
    config: The run.
    domains: Every domain's images, by name.
    model: The pretrained model.
    progress: See `loop.fit`.
    stop: Whether to save and stop after a number of steps.
    evaluated: Called with the accuracies of every evaluation on the way.
    say: Called with a sentence for the user.
    evaluating: Called with a set's name, its images that are evaluated, and
      all of them.

  Returns:
    The line for the results file.
  """
  task = task_of(config, domains, model)

  def report(member: methods.Member, step: int, loss: float) -> None:
    del member
    if progress is not None:
      progress(step, loss)

  saving = None
  if config.checkpoint is not None:
    saving = Saving(
      config.checkpoint,
      every=config.save_every,
      config=described(config) | {"seed": config.seed},
      stop=stop,
    )
  runs = Runs(
    task,
    [config.method],
    progress=report,
    saving=saving,
    mesh=mesh_of(config),
    sharding=config.sharding or "data",
    watch=watch_of(config, domains, evaluated, say, evaluating),
  )
  return record(config, runs, domains, evaluating)


def mesh_of(config: Config) -> jax.sharding.Mesh | None:
  """The devices that share the run; None if it has one to itself."""
  shared = config.distributed or config.sharding is not None
  return parallel.data_mesh() if shared else None


def task_of(
  config: Config, domains: dict[str, Split], model: Classifier
) -> Task:
  """What the run trains on; the seed cuts off the validation images."""
  source = config.data.source_of(domains, config.seed)
  batch_size = config.data.batch_size
  return Task(
    model=model,
    source=source,
    steps=length.steps(
      config.steps, config.epochs, images=len(source.train), batch=batch_size
    ),
    batch_size=batch_size,
    warmup=config.warmup,
    seed=config.seed,
    skip_nonfinite=config.skip_nonfinite,
    balanced=config.data.target is not None,
    recipe=config.training,
  )


def watch_of(
  config: Config,
  domains: dict[str, Split],
  evaluated: Callable[[Mapping[str, float]], None] | None = None,
  say: Callable[[str], None] | None = None,
  evaluating: Progress = lambda name, done, total: None,
) -> Watch:
  """Who watches the run; the OOD images are given to nobody else."""

  def show(
    member: methods.Member, taken: int, found: Mapping[str, float]
  ) -> None:
    del member, taken
    if evaluated is not None:
      evaluated(found)

  seen = config.watching.watch_ood
  return Watch(
    config.watching,
    ood=config.data.targets_of(domains) if seen else {},
    evaluated=show,
    say=say,
    evaluating=evaluating,
  )


def record(
  config: Config,
  runs: Runs,
  domains: dict[str, Split],
  evaluating: Progress = lambda name, done, total: None,
) -> records.Record:
  """Finishes what `config.method` needs of some runs, and evaluates it.

  Args:
    config: The run.
    runs: Of its task, planned for its method and perhaps for others.
    domains: Every domain's images, by name.
    evaluating: As for `run`.

  Returns:
    The line for the results file.
  """

  def measure(model: nnx.Module) -> records.Record:
    return evaluate(
      model,
      runs.task.source.validation,
      config.data.targets_of(domains),
      by_domain=runs.task.balanced,
      mesh=mesh_of(config),
      progress=evaluating,
    )

  def save(model: nnx.Module) -> None:
    if config.export is None or jax.process_index() != 0:
      return
    # An ensemble is several models, and no file of one format holds them.
    if not isinstance(model, Ensemble):
      export.to_timm(model, config.export)

  return line(
    described(config), config.seed, runs, config.method, measure, save
  )


def table(record: records.Record) -> rich.table.Table:
  """The accuracies of a run, in percent."""
  config, metrics = record["config"], record["metrics"]
  view = rich.table.Table(
    title=f"{config['method']['name']}, seed {record['seed']}: accuracy (%)"
  )
  data = config["data"]
  trained_on = data["source"] if "source" in data else f"not {data['target']}"
  columns = {
    f"{trained_on} (held out)": metrics["id"],
    **metrics["ood"],
    "mean OOD": metrics["mean_ood"],
    "worst OOD": metrics["worst_ood"],
  }
  for name in columns:
    view.add_column(name, justify="right")
  view.add_row(*(f"{100 * value:.1f}" for value in columns.values()))
  return view


def main(config: Config) -> None:
  """Runs one configuration, shows the table and appends the line."""
  if config.distributed:
    if config.checkpoint is None:
      # JAX would catch SIGTERM, and there is nothing to save before it ends.
      jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
      config.coordinator, config.processes, config.process
    )
  leads = jax.process_index() == 0
  console = rich.console.Console(quiet=not leads)
  compilation_cache.keep(functools.partial(console.print, soft_wrap=True))
  try:
    if config.recipe is not None and leads:
      config.method.advise(config.recipe)
    with contextlib.ExitStack() as stack:
      stack.enter_context(peers.watched(_host(config.coordinator)))
      if config.checkpoint is not None and leads:
        stack.enter_context(exclusive(config.checkpoint))
      record = run_or_recall(config, console)
      if leads:
        finish(config, record, console)
  except Stopped as stopped:
    console.print(str(stopped))
  except (FloatingPointError, OSError, ValueError) as error:
    if jax.process_count() > 1:
      peers.end(f"error: {error}")
    sys.exit(f"error: {error}")  # what the user gave is wrong, not the program
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1:
      raise
    peers.end(f"error: {str(error).splitlines()[0]}")
  if config.distributed:
    jax.distributed.shutdown()  # waits for the others, of whom one may be late


def _host(coordinator: str | None) -> str | None:
  """Where the first process is, if that was given."""
  return None if coordinator is None else coordinator.rpartition(":")[0]


def run_or_recall(
  config: Config, console: rich.console.Console
) -> records.Record:
  """The line of a run, which may have ended before it could be appended."""
  if config.checkpoint is not None:
    known = records.recall(config.checkpoint)
    if known is not None:
      return known
  with console.status("reading images and weights"):
    domains, model = load(config)
  bar = rich.progress.Progress(
    *rich.progress.Progress.get_default_columns(),
    rich.progress.TextColumn("{task.fields[loss]}{task.fields[seen]}"),
    console=console,
  )
  with bar, stop_on_sigterm(saves=config.checkpoint is not None) as stop:
    # Not every method takes steps: the bar appears with the first one.
    steps = config.steps or task_of(config, domains, model).steps
    total = steps * len(config.method.members())
    task = bar.add_task(
      "training", total=total, loss="", seen="", visible=False
    )

    def progress(step: int, loss: float) -> None:
      # The step is of the run, of which there may be several; one that goes on
      # does not begin at 0.
      done = step + 1 if total == steps else None
      bar.update(task, advance=None if done else 1, completed=done)
      bar.update(task, loss=f"loss {loss:.3f}", visible=True)

    def evaluated(found: Mapping[str, float]) -> None:
      bar.update(task, seen=watching.sentence(found))

    row = bar.add_task("evaluating", loss="", seen="", visible=False)

    def evaluating(name: str, done: int, total: int) -> None:
      what = f"evaluating {name}"
      bar.update(row, description=what, completed=done, total=total)
      bar.update(row, visible=done < total)

    return run(
      config,
      domains,
      model,
      progress,
      stop,
      evaluated,
      console.print,
      evaluating,
    )


def note(config: Config, record: records.Record) -> None:
  """Appends the line of a run; once, if it has a folder to note that in."""
  if config.checkpoint is None:
    records.append(config.results, record)
  else:
    ours = described(config) | {"seed": config.seed}
    records.append_once(config.results, record, ours, config.checkpoint)


def finish(
  config: Config, record: records.Record, console: rich.console.Console
) -> None:
  """Appends the line, and shows the table."""
  note(config, record)
  console.print(table(record))
  stats, seconds = record["stats"], record["seconds"]
  console.print(
    f"{stats['runs']} runs, {stats['steps_per_second']:.2f} steps/s,"
    f" {stats['changed_parameters']:,} weights per step,"
    f" {stats['trained_parameters']:,} over a run,"
    f" {stats['optimizer_bytes'] / 2**20:.1f} MiB of optimizer state,"
    f" {stats['forward_passes']} forward passes per image;"
    f" {seconds['evaluate']:.0f} s of evaluation. Appended to {config.results}."
  )
  if config.export is not None and stats["forward_passes"] > 1:
    console.print(
      f"Nothing was exported to {config.export}: an ensemble is"
      f" {stats['forward_passes']} models."
    )


def parse(arguments: list[str] | None = None) -> Config:
  """Reads the command line; see `train_config.parse`."""
  return train_config.parse(arguments, __doc__ or "")


if __name__ == "__main__":
  main(parse())
