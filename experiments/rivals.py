"""All methods on the demo's task: a table in minutes on two CPU cores.

  python -m experiments.rivals

The small CLIP of `experiments.demo` is fine-tuned on scanned digits by every
registered method, from the zero-shot head (but for the linear probe and LP-FT,
which fit one), and evaluated on the held-out scans and the eight shifted sets.
Methods that share runs train them once.

Soups, windows and shares are chosen on the validation scans. So are those
learning rates that were searched, see `GRIDS`; `--choose` runs that again.
"""

import dataclasses
import pathlib
import time
from collections.abc import Iterator, Sequence

import rich.console
import rich.progress
import rich.table
import tyro

from experiments import demo, evaluate, line, methods, plots, results, tables
from experiments.data import scanned_digits, shifts
from experiments.data.split import Source
from experiments.judge import Judge
from experiments.loop import weights_of
from experiments.methods.composition import Composed
from experiments.methods.diwa import DiWA, RestrictedDiWA
from experiments.methods.ema import EMA
from experiments.methods.flyp import FLYP
from experiments.methods.ftp import FTP
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.high_rate_mixout import HighRateMixout
from experiments.methods.l2_sp import L2SP
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.lora import LoRA
from experiments.methods.lp_ft import LPFT
from experiments.methods.manifold_mixing import ManifoldMixing
from experiments.methods.mixout import Mixout, NeuronMixout
from experiments.methods.model_soups import GreedySoup, LearnedSoup, UniformSoup
from experiments.methods.model_stock import ModelStock
from experiments.methods.output_ensemble import OutputEnsemble
from experiments.methods.random_mask import RandomMask
from experiments.methods.spd import SPD
from experiments.methods.swa import SWA
from experiments.methods.swad import SWAD
from experiments.methods.very_large_dropout import VeryLargeDropout
from experiments.methods.wise_ft import WiseFT
from experiments.methods.zero_shot import ZeroShot
from experiments.runs import Runs, Task

# These three as in the demo.
FULL = FullFinetuning(learning_rate=1e-3)
MIXOUT = Mixout(learning_rate=1e-3, head_learning_rate=1e-4)
GMIXOUT = GMixout(learning_rate=1e-2, head_learning_rate=1e-4)

DENSE: tuple[methods.Method, ...] = (
  LPFT(learning_rate=3e-3),
  FLYP(learning_rate=3e-3),
  L2SP(of=FullFinetuning(learning_rate=3e-3)),
  SPD(of=FULL),
  FTP(of=FullFinetuning(learning_rate=3e-4)),
  SWA(of=FullFinetuning(learning_rate=3e-3)),
  VeryLargeDropout(of=FullFinetuning(learning_rate=3e-3)),
)

SPARSE: tuple[methods.Method, ...] = (
  LoRA(learning_rate=1e-2, head_learning_rate=1e-4),
  RandomMask(learning_rate=1e-2, head_learning_rate=1e-4),
  NeuronMixout(learning_rate=1e-3, head_learning_rate=1e-4),
)

GRIDS = {DENSE: (3e-4, 1e-3, 3e-3), SPARSE: (1e-3, 3e-3, 1e-2)}
"""The rates that `--choose` tries: those beside full fine-tuning's, and for
what trains a part of the weights larger ones. Accuracy (%) and loss on the
validation scans, seed 0, 150 steps; the most accurate is taken, of two the one
with the smaller loss:

                      3e-4        1e-3        3e-3        1e-2
  LP-FT               97.4 0.082  97.8 0.105  98.9 0.066
  FLYP                97.4 0.107  98.1 0.082  98.1 0.075
  L2-SP               95.2 0.174  96.3 0.137  97.0 0.124
  SPD                 95.9 0.155  98.1 0.105  96.3 0.143
  FTP                 94.8 0.164  94.4 0.170  94.1 0.171
  SWA                 96.3 0.142  97.8 0.087  98.9 0.038
  very large dropout  95.9 0.192  96.7 0.155  96.7 0.122
  LoRA                            94.8 0.169  95.9 0.115  97.0 0.123
  Random Mask                     94.8 0.211  97.0 0.132  98.1 0.067
  Mixout, neurons                 96.7 0.139  84.1 0.553  18.9 2.361

Five of the ten are at an edge of their grid. Full fine-tuning, Mixout and
GMixout had grids of five in the demo. What is built on them (EMA, SWAD, soups,
ensembles, lines) has their rate, High-Rate Mixout has Mixout's.
"""

RIVALS: tuple[methods.Method, ...] = (
  ZeroShot(),
  LinearProbe(),
  FULL,
  *DENSE[:6],
  EMA(of=FULL, decay=0.9),  # looks back 10 steps, 7 % of the run
  SWAD(of=FULL),
  *DENSE[6:],
  *SPARSE,
  MIXOUT,
  HighRateMixout(learning_rate=1e-3, head_learning_rate=1e-4),
  GMIXOUT,
  WiseFT(of=FULL),
  UniformSoup(of=FULL),
  GreedySoup(of=FULL),
  LearnedSoup(of=FULL),
  OutputEnsemble(of=FULL),
  DiWA(of=FULL),
  RestrictedDiWA(of=FULL),
  ModelStock(of=FULL),
  ManifoldMixing(of=FULL),
  WiseFT(of=GMIXOUT),
  VeryLargeDropout(of=GMIXOUT),
  UniformSoup(of=GMIXOUT, runs=3),
)


@dataclasses.dataclass(frozen=True)
class Config:
  """What to run.

  Attributes:
    seeds: Of everything random; a soup's other runs draw theirs from it.
    steps: Optimizer steps per run.
    batch_size: Images per step.
    folder: The CLIP to start from.
    out: The folder for results.jsonl.
    choose: Rather than the table, run every learning rate of the grid and show
      accuracy and loss on the validation scans.
  """

  seeds: tuple[int, ...] = (0,)
  steps: int = 150
  batch_size: int = 64
  folder: pathlib.Path = demo.FOLDER
  out: pathlib.Path = pathlib.Path("runs/rivals")
  choose: bool = False


def task(config: Config, seed: int) -> Task:
  """Fine-tuning on the training scans."""
  parts = scanned_digits.load()
  return Task(
    model=demo.zero_shot_classifier(config.folder),
    source=Source(parts["train"], parts["validation"]),
    steps=config.steps,
    batch_size=config.batch_size,
    augmented=False,
    seed=seed,
  )


def planned(
  config: Config,
  compared: Sequence[methods.Method],
  seed: int,
  bar: rich.progress.Progress,
) -> Runs:
  """The runs of some methods, with a bar over all their steps."""
  row = bar.add_task(f"seed {seed}", total=None)

  def progress(member: methods.Member, step: int, loss: float) -> None:
    del step, loss
    name = plots.title(methods.name_of(member.method))
    bar.update(row, advance=1, description=f"seed {seed}: {name}")

  runs = Runs(task(config, seed), compared, progress=progress)
  training = [m for m in runs.planned if not isinstance(m.method, STILL)]
  bar.update(row, total=config.steps * len(training))
  return runs


STILL = (ZeroShot, LinearProbe)
"""The methods that take no steps."""


def lines(
  config: Config, bar: rich.progress.Progress
) -> Iterator[results.Record]:
  """One line per method and seed."""
  test = scanned_digits.load()["test"]
  targets = shifts.out_of_distribution(test)
  measure = lambda model: evaluate.evaluate(model, test, targets)
  for seed in config.seeds:
    runs = planned(config, RIVALS, seed, bar)
    for method in RIVALS:
      setting = {
        "method": results.plain(methods.described(method)),
        "data": "scanned_digits",
        "steps": config.steps,
        "batch_size": config.batch_size,
      }
      yield line.line(setting, seed, runs, method, measure)


def at_rate(method: methods.Method, rate: float) -> methods.Method:
  """The method with this learning rate; that of a head of its own stays.

  Example:
    >>> at_rate(SPD(of=FULL), 0.5).of.learning_rate
    0.5
  """
  if isinstance(method, Composed):
    return dataclasses.replace(method, of=at_rate(method.of, rate))
  return dataclasses.replace(method, **{"learning_rate": rate})


def choose(
  config: Config, bar: rich.progress.Progress, console: rich.console.Console
) -> rich.table.Table:
  """The grids of learning rates, judged on the validation scans alone."""
  view = rich.table.Table(title="on the validation scans, first seed")
  for heading in ("method", "rate", "accuracy (%)", "loss"):
    view.add_column(heading)
  for group, grid in sorted(GRIDS.items(), key=lambda item: len(item[0])):
    for method in group:
      tried = [at_rate(method, rate) for rate in grid]
      runs = planned(config, tried, config.seeds[0], bar)
      judge = Judge(runs.task.model, runs.task.source.validation)
      for rate, one in zip(grid, tried, strict=True):
        weights = weights_of(runs.outcome(one).model)
        row = (
          plots.title(methods.name_of(method)),
          f"{rate:g}",
          f"{100 * judge.accuracy(weights):.1f}",
          f"{judge.loss(weights):.3f}",
        )
        console.print(*row)  # at once: the whole takes a while
        view.add_row(*row)
  return view


def main(config: Config) -> None:
  """Runs all methods, shows the tables."""
  start = time.perf_counter()
  console = rich.console.Console()
  with (
    demo.shared_compilations(),
    rich.progress.Progress(console=console) as bar,
  ):
    if config.choose:
      console.print(choose(config, bar, console))
      return
    path = config.out / "results.jsonl"
    path.unlink(missing_ok=True)  # the table shows its own runs only
    records = []
    for found in lines(config, bar):
      results.append(path, found)
      records.append(found)
  console.print(tables.by_method(records))
  console.print(tables.by_cost(records))
  console.print(f"{time.perf_counter() - start:.0f} s; wrote {path}")


if __name__ == "__main__":
  main(tyro.cli(Config, description=__doc__))
