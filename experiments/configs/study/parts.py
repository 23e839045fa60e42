"""The parts of the study, as stages: rates first, then what they decide."""

import dataclasses
import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

from experiments.configs.study import plan, scales
from experiments.configs.study.choose import choose, grown
from experiments.harness.stage import Stage, Stages
from experiments.methods import Method
from experiments.methods.zero_shot import ZeroShot
from experiments.reporting import display_names
from experiments.reporting.records import Record
from experiments.task_options import TaskOptions
from experiments.tasks.digits import Digits
from experiments.tasks.image_task import ImageTask
from experiments.tasks.task import Task

Step = Generator[Stage, list[Record], Any]

PARTS = (
  "digits", "short", "long", "equal_work", "bound", "sources", "targets",
  "words", "ablations",
)  # fmt: skip
"""What --cases may name:

digits      every method that has a rate, on the demo's task
short       the compared methods, trained on one domain of PACS
long        the core methods there, for four times the steps
equal_work  GMixout with neurons, for steps that make up for its cheaper ones
bound       GMixout's k and λ against the progress bound, on the digits
sources     the core methods, trained on the other domains
targets     the core methods, trained on all domains but one
words       from a CLIP and its zero-shot head
ablations   each other setting of GMixout, on the digits
"""

VIT = (1e-4, 3e-4, 1e-3)
"""Full fine-tuning's rates on PACS, to begin with."""

CLIP = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""And on the digits."""

OF_SETTINGS = ("bound", "ablations")
"""The parts whose methods are not run along learning rates."""

GROWN = 2
"""How often a grid grows at most, if the choice is at its edge."""

WORK = 0.70
"""Of a step of full fine-tuning, with neurons, on a ViT-B/16: `bench flops`."""


@dataclasses.dataclass(frozen=True)
class Study:
  """The study.

  Attributes:
    scale: How large.
  """

  scale: scales.Scale

  def stages(
    self,
    options: TaskOptions,
    cases: Sequence[str],
    seeds: Sequence[int],
    say: Callable[[str], None],
  ) -> Stages:
    """Its parts in order.

    Args:
      options: `root` and `backbone`; nothing else of it.
      cases: The parts; all if there are none.
      seeds: Of the runs that are reported; by default the scale's own.
      say: Called with a sentence for the user.

    Raises:
      ValueError: If there is no such part.
    """
    if unknown := [case for case in cases if case not in PARTS]:
      raise ValueError(
        f"--cases must name some of {', '.join(PARTS)}; got {unknown[0]!r}."
      )
    options.refuse_all_but("root", "backbone")
    asked = _Asked(self.scale, options, tuple(seeds or self.scale.seeds), say)
    for name in cases or PARTS:
      yield from getattr(asked, name)()


class _Asked:
  """The parts, for what the user asked."""

  def __init__(
    self,
    scale: scales.Scale,
    options: TaskOptions,
    seeds: tuple[int, ...],
    say: Callable[[str], None],
  ):
    self.scale, self.options, self.seeds, self.say = scale, options, seeds, say
    self._tasks: dict[str, Task] = {}

  def file(self, part: str) -> str:
    """Of a part's lines; those along learning rates are read together."""
    kind = "settings" if part in OF_SETTINGS else "curves"
    return f"{kind}_{part}_{self.scale.name}"

  def pacs(self, scale: scales.Scale | None = None, **which: Any) -> ImageTask:
    """A task on PACS; the same object each time, so that it is opened once."""
    scale = scale or self.scale
    if self.options.root is None or self.options.backbone is None:
      raise ValueError(
        "--root must name PACS in DomainBed's layout, and --backbone a ViT or a"
        f" CLIP; got {self.options.root} and {self.options.backbone}."
      )
    task = scale.on(self.options.root, self.options.backbone, **which)
    return self._tasks.setdefault(repr(task.config), task)  # pyright: ignore

  def curves(
    self, part: str, task: Task, names: Sequence[str], full: Sequence[float]
  ) -> Generator[Stage, list[Record], dict[str, Method] | None]:
    """Methods at every rate with every seed.

    Returns:
      Each at the rate that is chosen; None while a run is missing.
    """
    every = plan.grids(full)
    searched = {name: every[name] for name in names}
    times = 0
    while True:
      tried = [m for grid in searched.values() for m in grid.methods()]
      cells = list(plan.by_seed(task, tried, self.seeds))
      lines = yield Stage(cells, self.file(part))
      if len(lines) < len({cell.identity for cell in cells}):
        return None
      found = {
        name: choose(task, grid, self.seeds, lines)
        for name, grid in searched.items()
      }
      longer = grown(searched, found)
      at_edge = [name for name in names if longer[name] != searched[name]]
      if not at_edge or times == GROWN:
        break
      searched, times = longer, times + 1
    if at_edge:
      shown = ", ".join(map(display_names.title, at_edge))
      self.say(f"still at the edge of their grids: {shown}.")
    return {name: choice.method for name, choice in found.items()}

  def then(self, part: str, task: Task, methods: Sequence[Method]) -> Step:
    """Further methods on a task, with every seed."""
    yield Stage(list(plan.by_seed(task, methods, self.seeds)), self.file(part))

  def digits(self) -> Step:
    """Every method on the demo's task."""
    task = Digits()
    found = yield from self.curves("digits", task, plan.EVERY, CLIP)
    if found is not None:
      yield from self.then("digits", task, plan.of_runs(found))

  def short(self) -> Step:
    """The compared methods, trained on one domain."""
    task = self.first(self.scale.steps)
    found = yield from self.curves("short", task, plan.COMPARED, VIT)
    if found is not None:
      yield from self.then("short", task, plan.of_three(found))

  def long(self) -> Step:
    """The core methods for longer."""
    yield from self.curves(
      "long", self.first(self.scale.long_steps), plan.CORE, VIT
    )

  def equal_work(self) -> Step:
    """GMixout with neurons, for as much work as full fine-tuning takes."""
    lengths = {"short": self.scale.steps, "long": self.scale.long_steps}
    for part, steps in lengths.items():
      names = ("full_finetuning", "gmixout_neurons")
      found = yield from self.curves(part, self.first(steps), names, VIT)
      if found is None:
        return
      chosen: Any = found["gmixout_neurons"]
      at = chosen.learning_rate
      rates = tuple(float(f"{x:.2g}") for x in (at / 3, at, at * 3))
      methods = [
        dataclasses.replace(chosen, learning_rate=rate) for rate in rates
      ]
      task = self.first(math.ceil(steps / WORK))
      yield from self.then("equal_work", task, methods)

  def bound(self) -> Step:
    """GMixout's k and λ, with and without rescaling, in runs of two lengths."""
    names = ("full_finetuning", "gmixout", "gmixout_without_rescale")
    found = yield from self.curves("digits", Digits(), names, CLIP)
    if found is None:
      return
    methods = [
      ZeroShot(),
      found["full_finetuning"],
      *plan.bounded(found["gmixout"], found["gmixout_without_rescale"]),
    ]
    for steps in (150, 600):
      cells = plan.by_seed(Digits(steps=steps), methods, self.seeds[:3])
      yield Stage(list(cells), self.file("bound"))

  def sources(self) -> Step:
    """The core methods, trained on the other domains."""
    for source in self.scale.sources[1:]:
      yield from self.curves(
        "sources", self.pacs(source=source), plan.CORE, VIT
      )

  def targets(self) -> Step:
    """The core methods, trained on all domains but one."""
    for target in self.scale.targets:
      yield from self.curves(
        "targets", self.pacs(target=target), plan.CORE, VIT
      )

  def words(self) -> Step:
    """From a CLIP and its zero-shot head, trained on one domain."""
    if self.options.backbone is None or not self.options.backbone.is_dir():
      self.say(
        "the part words starts from a CLIP: give --cases words --backbone"
        f" FOLDER for it; got {self.options.backbone}."
      )
      return
    size, steps = self.scale.of_words
    scale = dataclasses.replace(self.scale, image_size=size, steps=steps)
    task = self.pacs(scale, source=self.scale.sources[0])
    found = yield from self.curves("words", task, plan.OF_WORDS, VIT)
    if found is not None:
      yield from self.then("words", task, plan.with_words(found))

  def ablations(self) -> Step:
    """GMixout's other settings, at the rate of the default configuration."""
    task, names = Digits(), ("gmixout", "random_mask", "lora")
    found = yield from self.curves("digits", task, names, CLIP)
    if found is not None:
      variants = plan.variants(found["gmixout"])
      yield from self.then("ablations", task, variants + plan.budgets(found))

  def first(self, steps: int) -> ImageTask:
    """The first source, for so many steps."""
    scale = dataclasses.replace(self.scale, steps=steps)
    return self.pacs(scale, source=self.scale.sources[0])
