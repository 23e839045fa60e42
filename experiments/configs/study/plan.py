"""Which methods the study compares, and with which learning rates.

Every method runs at every rate of its grid with every seed: its curve of OOD
over ID accuracy is drawn through all of them, and a rate is chosen for the
tables by validation accuracy alone (`choose`).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gmixout_jax as gx
from experiments.harness.cell import Cell
from experiments.methods import Method
from experiments.methods.diwa import DiWA, RestrictedDiWA
from experiments.methods.ema import EMA
from experiments.methods.flyp import FLYP
from experiments.methods.ftp import FTP
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.full_finetuning_of_blocks import FullFinetuningOfBlocks
from experiments.methods.gmixout import GMixout
from experiments.methods.high_rate_mixout import HighRateMixout
from experiments.methods.l2_sp import L2SP
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.lora import LoRA
from experiments.methods.lp_ft import LPFT
from experiments.methods.manifold_mixing import ManifoldMixing
from experiments.methods.mixout import NeuronMixout
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

Chosen = Mapping[str, Method]
"""Methods by name, each with the rate that was chosen for it."""


@dataclasses.dataclass(frozen=True)
class Grid:
  """A method and the learning rates that it runs with.

  Attributes:
    make: From a rate to the method.
    rates: Ascending, at least two.
  """

  make: Callable[[float], Method]
  rates: tuple[float, ...]

  def methods(self) -> list[Method]:
    """The method at every rate."""
    return [self.make(rate) for rate in self.rates]

  def grown(self, *, down: bool, up: bool) -> "Grid":
    """With one rate more at an end, or at both, as far from it as the next.

    Example:
      >>> Grid(lambda rate: FullFinetuning(rate), (1e-4, 1e-3)).grown(
      ...   down=False, up=True).rates
      (0.0001, 0.001, 0.01)
    """
    low, *_, high = rates = self.rates
    below = (float(f"{low * low / rates[1]:.2g}"),) if down else ()
    above = (float(f"{high * high / rates[-2]:.2g}"),) if up else ()
    return dataclasses.replace(self, rates=(*below, *rates, *above))


def grids(full: Sequence[float]) -> dict[str, Grid]:
  """Every method that has a rate of its own, with grids of one size.

  By the first looks, what trains a fixed or a passing part of the weights wants
  five times the rate of full fine-tuning, and factors of low rank ten times. A
  sub-network that lasts for one step is three times more patient than one that
  lasts for ten, and one whose weights are not rescaled five times.

  Args:
    full: The rates of full fine-tuning, ascending.
  """

  def grid(factor: float, make: Callable[[float], Method]) -> Grid:
    return Grid(make, tuple(float(f"{factor * rate:.2g}") for rate in full))

  def around(make: Callable[..., Method], **settings: Any) -> Grid:
    """Another method around full fine-tuning, at the rates of that."""
    return grid(
      1, lambda r: make(of=FullFinetuning(learning_rate=r), **settings)
    )

  def mixed(
    factor: float, make: Callable[..., Method], **settings: Any
  ) -> Grid:
    return grid(
      factor,
      lambda r: make(learning_rate=r, head_learning_rate=1e-4, **settings),
    )

  return {
    "full_finetuning": grid(1, lambda r: FullFinetuning(learning_rate=r)),
    "full_finetuning_of_blocks": grid(
      1, lambda r: FullFinetuningOfBlocks(learning_rate=r)
    ),
    "gmixout": mixed(5, GMixout, rescale=True),
    "gmixout_each_step": mixed(15, GMixout, resample_every=1, rescale=True),
    "gmixout_without_rescale": mixed(25, GMixout),
    "gmixout_neurons": mixed(25, GMixout, sampler="neuron"),
    "neuron_mixout": mixed(1, NeuronMixout),
    "high_rate_mixout": mixed(1, HighRateMixout),
    "random_mask": mixed(5, RandomMask),
    "lora": mixed(10, LoRA),
    "l2_sp": around(L2SP),
    "spd": around(SPD),
    "ftp": around(FTP),
    "swa": around(SWA),
    "ema": around(EMA, decay=0.9),
    "swad": around(SWAD),
    "very_large_dropout": around(VeryLargeDropout),
    "lp_ft": grid(1, lambda r: LPFT(learning_rate=r)),
    "flyp": grid(1, lambda r: FLYP(learning_rate=r)),
  }


EVERY = tuple(grids((1.0, 2.0)))
"""All that have a rate, the most important first; some need a text tower."""

COMPARED = (
  "full_finetuning", "full_finetuning_of_blocks", "gmixout_each_step",
  "gmixout_without_rescale", "gmixout_neurons", "gmixout", "l2_sp", "spd",
  "lora", "random_mask", "neuron_mixout",
)  # fmt: skip
"""Those that are compared on photographs, cartoons and paintings."""

CORE = COMPARED[:5]
"""Those that matter most, where all would take too long."""

OF_WORDS = (*CORE, "lp_ft", "flyp")
"""Those that are compared from a zero-shot head."""

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of WiSE-FT's curve."""


def of_three(chosen: Chosen) -> list[Method]:
  """A probe, and what is made of three runs at the rate that was chosen."""
  full = chosen["full_finetuning"]
  return [
    LinearProbe(),
    *wise_ft_curve(full),
    UniformSoup(of=full, runs=3),
    OutputEnsemble(of=full, runs=3),
  ]


def of_runs(chosen: Chosen) -> list[Method]:
  """All that works on finished runs, at the rates that were chosen."""
  full, ours = chosen["full_finetuning"], chosen["gmixout_each_step"]
  return [
    ZeroShot(),
    LinearProbe(),
    *wise_ft_curve(full),
    *wise_ft_curve(ours),
    UniformSoup(of=full),
    GreedySoup(of=full),
    LearnedSoup(of=full),
    OutputEnsemble(of=full),
    DiWA(of=full),
    RestrictedDiWA(of=full),
    ModelStock(of=full),
    ManifoldMixing(of=full),
    UniformSoup(of=ours),
  ]


def with_words(chosen: Chosen) -> list[Method]:
  """What is made of runs from a zero-shot head."""
  return [ZeroShot(), *wise_ft_curve(chosen["full_finetuning"])]


def wise_ft_curve(of: Method) -> list[Method]:
  """The line from before to after a run."""
  return [WiseFT(of=of, alpha=alpha) for alpha in ALPHAS]


def bounded(scaled: Method, unscaled: Method) -> list[Method]:
  """GMixout's k and λ, with and without rescaling, to hold against the bound.

  The rates are those that were chosen at k 10, and with rescaling they follow
  k as `gmixout_jax.gmixout_learning_rate` has it.

  Args:
    scaled: GMixout with k 10.
    unscaled: The same without rescaling.
  """
  found: list[Method] = []
  for base in (scaled, unscaled):
    rate: float = base.learning_rate  # pyright: ignore
    for k in (1, 3, 10, 50):
      falls = gx.gmixout_learning_rate(1.0, resample_every=k)
      at = rate * falls / gx.gmixout_learning_rate(1.0)
      for decay in (0.0, 0.3, 0.8):
        found.append(
          dataclasses.replace(
            base,
            resample_every=k,
            anchor_decay=decay,
            learning_rate=at if base is scaled else rate,
          )
        )
  return found


VARIANTS: dict[str, dict[str, Any]] = {
  "default": {},
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


def variants(base: Method) -> list[Method]:
  """Each variant of GMixout, at its rate."""
  return [dataclasses.replace(base, **changes) for changes in VARIANTS.values()]


def budgets(chosen: Chosen) -> list[Method]:
  """Random Mask and LoRA with fewer and with more weights than their own."""
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
