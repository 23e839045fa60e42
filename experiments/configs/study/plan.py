"""Which cells the study has: a method on a task with a seed each.

Learning rates are chosen first, for every method from a grid of the same size,
on the validation images, with a seed that no reported run has. All else of a
comparison follows from them.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments.harness.cell import Cell
from experiments.methods import Method
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
from experiments.tasks.task import Task

RATES_SEED = 100
"""Of the runs that rates are chosen by."""

Chosen = Mapping[str, Method]
"""Methods by name, each with the rate that was chosen for it."""


@dataclasses.dataclass(frozen=True)
class Grid:
  """A method and the learning rates to choose from.

  Attributes:
    make: From a rate to the method.
    rates: Ascending.
  """

  make: Callable[[float], Method]
  rates: tuple[float, ...]

  def methods(self) -> list[Method]:
    """The method at every rate."""
    return [self.make(rate) for rate in self.rates]


def grids(dense: Sequence[float], head: float = 1e-4) -> dict[str, Grid]:
  """Every method that has a rate of its own, with grids of one size.

  By the first looks, what trains a fixed or a passing part of the weights wants
  five times the rate of full fine-tuning, and factors of low rank ten times. A
  sub-network that lasts for one step is three times more patient than one that
  lasts for ten.

  Args:
    dense: The rates of full fine-tuning, ascending.
    head: The rate of the head, where that is one of its own.
  """

  def times(factor: float) -> tuple[float, ...]:
    return tuple(float(f"{factor * rate:.2g}") for rate in dense)

  low, mid, high, most = times(1), times(5), times(10), times(15)
  full = FullFinetuning
  return {
    "full_finetuning": Grid(lambda r: full(learning_rate=r), low),
    "lp_ft": Grid(lambda r: LPFT(learning_rate=r), low),
    "flyp": Grid(lambda r: FLYP(learning_rate=r), low),
    "l2_sp": Grid(lambda r: L2SP(of=full(learning_rate=r)), low),
    "spd": Grid(lambda r: SPD(of=full(learning_rate=r)), low),
    "ftp": Grid(lambda r: FTP(of=full(learning_rate=r)), low),
    "swa": Grid(lambda r: SWA(of=full(learning_rate=r)), low),
    "very_large_dropout": Grid(
      lambda r: VeryLargeDropout(of=full(learning_rate=r)), low
    ),
    "mixout": Grid(
      lambda r: Mixout(learning_rate=r, head_learning_rate=head), low
    ),
    "neuron_mixout": Grid(
      lambda r: NeuronMixout(learning_rate=r, head_learning_rate=head), low
    ),
    "random_mask": Grid(
      lambda r: RandomMask(learning_rate=r, head_learning_rate=head), mid
    ),
    "lora": Grid(
      lambda r: LoRA(learning_rate=r, head_learning_rate=head), high
    ),
    "gmixout": Grid(
      lambda r: GMixout(learning_rate=r, head_learning_rate=head), mid
    ),
    "gmixout_each_step": Grid(
      lambda r: GMixout(
        learning_rate=r, head_learning_rate=head, resample_every=1
      ),
      most,
    ),
  }


CORE = (
  "full_finetuning", "lora", "random_mask", "mixout", "gmixout",
  "gmixout_each_step",
)  # fmt: skip
"""The methods of the paper's tables that train once; GMixout with its k of 10,
and with the k of 1 that did best on the digits."""

BRIEF = ("full_finetuning", "random_mask", "gmixout", "gmixout_each_step")
"""Those of the core that matter most, where all would take too long."""

PATIENT = ("full_finetuning", "gmixout", "gmixout_each_step")
"""Those of which longer runs are made."""

OF_WORDS = (
  "full_finetuning", "lp_ft", "flyp", "mixout", "gmixout", "gmixout_each_step",
)  # fmt: skip
"""Those that are compared from a zero-shot head."""


def rates(
  task: Task, searched: Mapping[str, Grid], names: Sequence[str]
) -> Iterator[Cell]:
  """The cells that rates are chosen by."""
  for name in names:
    for method in searched[name].methods():
      yield Cell(task, method, RATES_SEED)


def core(chosen: Chosen) -> list[Method]:
  """The core methods, the probe, and lines that need no run."""
  return [
    LinearProbe(),
    *(chosen[name] for name in CORE),
    WiseFT(of=chosen["full_finetuning"]),
    WiseFT(of=chosen["gmixout"]),
  ]


def brief(chosen: Chosen) -> list[Method]:
  """The methods of `BRIEF`, the probe and WiSE-FT."""
  full = chosen["full_finetuning"]
  return [LinearProbe(), *(chosen[name] for name in BRIEF), WiseFT(of=full)]


def of_words(chosen: Chosen) -> list[Method]:
  """What is compared from a zero-shot head."""
  return [
    ZeroShot(),
    *(chosen[name] for name in OF_WORDS),
    WiseFT(of=chosen["full_finetuning"]),
    WiseFT(of=chosen["gmixout"]),
  ]


def reduced(chosen: Chosen) -> list[Method]:
  """All kinds of methods; of those that differ little, one, and pools of 3."""
  full, ours = chosen["full_finetuning"], chosen["gmixout"]
  return [
    *core(chosen),
    *(chosen[name] for name in ("l2_sp", "spd", "ftp", "very_large_dropout")),
    EMA(of=full, decay=0.9),
    SWAD(of=full),
    UniformSoup(of=full, runs=3),
    GreedySoup(of=full, runs=3),
    OutputEnsemble(of=full, runs=3),
    DiWA(of=full, runs=3),
    ModelStock(of=full),
    ManifoldMixing(of=full, runs=3),
    UniformSoup(of=ours, runs=3),
  ]


REDUCED = (*CORE, "l2_sp", "spd", "ftp", "very_large_dropout")
"""The methods of `reduced` that have a rate of their own."""


def every(chosen: Chosen) -> list[Method]:
  """All methods that a backbone without words allows."""
  full, ours = chosen["full_finetuning"], chosen["gmixout"]
  mixout: Any = chosen["mixout"]
  return [
    *core(chosen),
    *(chosen[name] for name in EVERY if name not in CORE),
    HighRateMixout(
      learning_rate=mixout.learning_rate,
      head_learning_rate=mixout.head_learning_rate,
    ),
    EMA(of=full, decay=0.9),
    SWAD(of=full),
    UniformSoup(of=full),
    GreedySoup(of=full),
    LearnedSoup(of=full),
    OutputEnsemble(of=full),
    DiWA(of=full),
    RestrictedDiWA(of=full),
    ModelStock(of=full),
    ManifoldMixing(of=full),
    VeryLargeDropout(of=ours),
    UniformSoup(of=ours),
  ]


EVERY = (*REDUCED, "swa", "neuron_mixout")
"""The methods of `every` that have a rate of their own."""


def on_digits(chosen: Chosen) -> list[Method]:
  """All methods there are: the head is of words."""
  with_words = [ZeroShot(), *(chosen[name] for name in ("lp_ft", "flyp"))]
  return [*with_words, *every(chosen)]


ON_DIGITS = (*EVERY, "lp_ft", "flyp")
"""The methods of `on_digits` that have a rate of their own."""


VARIANTS: dict[str, dict[str, Any]] = {
  "as it is": {},
  "λ 0": {"anchor_decay": 0.0},
  "λ 0.8": {"anchor_decay": 0.8},
  "k 1": {"resample_every": 1},
  "k 3": {"resample_every": 3},
  "k 50": {"resample_every": 50},
  "p 0.5": {"sparsity": 0.5},
  "p 0.97": {"sparsity": 0.97},
  "p 0.5, k 50": {"sparsity": 0.5, "resample_every": 50},
  "p 0.97, k 50": {"sparsity": 0.97, "resample_every": 50},
  "moments reset": {"moments": "reset"},
  "moments reset, k 50": {"moments": "reset", "resample_every": 50},
  "uniform": {"sampler": "uniform"},
  "bernoulli": {"sampler": "bernoulli"},
  "neuron": {"sampler": "neuron"},
}
"""GMixout's settings, away from p 0.9, λ 0.3, k 10, stratified, carried."""


def changed(config: Mapping[str, Any]) -> str:
  """The variant that a line's method is, whatever its learning rate.

  Raises:
    ValueError: If it is none of `VARIANTS`.

  Example:
    >>> from experiments.methods import described
    >>> changed(described(GMixout(resample_every=50)))
    'k 50'
  """
  base = dataclasses.asdict(GMixout())
  free = ("name", "learning_rate", "head_learning_rate")
  found = {
    key: value
    for key, value in config.items()
    if key not in free and value != base.get(key)
  }
  for name, changes in VARIANTS.items():
    if changes == found:
      return name
  raise ValueError(f"no variant of GMixout has {found}.")


def variants(base: Method) -> list[Method]:
  """Each variant of GMixout as it is, at its rate."""
  return [dataclasses.replace(base, **changes) for changes in VARIANTS.values()]


def budgets(chosen: Chosen) -> list[Method]:
  """Random Mask and LoRA with about as many weights as GMixout per step."""
  mask: Any = chosen["random_mask"]
  lora: Any = chosen["lora"]
  return [
    *(dataclasses.replace(mask, sparsity=p) for p in (0.5, 0.97)),
    *(dataclasses.replace(lora, rank=rank) for rank in (2, 32)),
  ]


def by_seed(
  task: Task, methods: Sequence[Method], seeds: Sequence[int]
) -> Iterator[Cell]:
  """Every method with every seed; those of a seed, which share runs, follow."""
  for seed in seeds:
    for method in methods:
      yield Cell(task, method, seed)
