"""The parts of the study, as stages: rates first, then what they decide."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any

from experiments.configs.study import plan, scales
from experiments.configs.study.choose import chosen, edges
from experiments.harness.cell import Cell
from experiments.harness.stage import Stage, Stages
from experiments.methods import Method
from experiments.reporting import display_names
from experiments.reporting.records import Record
from experiments.task_options import TaskOptions
from experiments.tasks.digits import Digits
from experiments.tasks.image_task import ImageTask
from experiments.tasks.task import Task

Listed = Callable[[plan.Chosen], list[Method]]
Rates = dict[str, plan.Grid]
Step = Generator[Stage, list[Record], Any]

PARTS = (
  "sources", "targets", "words", "sizes", "lengths", "rule", "ablations",
  "digits", "untrained",
)  # fmt: skip
"""What --cases may name:

sources    every method, trained on one domain of PACS
targets    the core methods, trained on all domains but one
words      from a CLIP and its zero-shot head
sizes      the core methods on fewer images
lengths    full fine-tuning and GMixout for longer
rule       GMixout's settings at five learning rates
ablations  each setting at one rate, over seeds
digits     every method on the demo's task
untrained  the core methods there, from random weights
"""

# Full fine-tuning's rates on PACS and on the digits, by the first looks.
VIT: Rates = plan.grids((1e-4, 3e-4, 1e-3))
CLIP: Rates = plan.grids((3e-4, 1e-3, 3e-3))


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
    """Of a part's lines."""
    return f"study_{part}_{self.scale.name}"

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

  def compare(self, part: str, task: Task, methods: Sequence[Method]) -> Step:
    """A part's cells of some methods on a task, with every seed."""
    yield Stage(list(plan.by_seed(task, methods, self.seeds)), self.file(part))

  def core(self) -> tuple[tuple[str, ...], Listed]:
    """The core methods beyond the first comparison, and how they are listed."""
    if self.scale.whole:
      return plan.CORE, plan.core
    return plan.BRIEF, plan.brief

  def sources(self) -> Step:
    """Every method, trained on one domain."""
    lists: dict[tuple[str, ...], Listed] = {plan.CORE: plan.core}
    if self.scale.whole:
      lists[plan.EVERY] = plan.every
    else:
      lists[plan.REDUCED] = plan.reduced
    # The core methods first: if time is short, they are there.
    for names, listed in lists.items():
      for source in self.scale.sources:
        task = self.pacs(source=source)
        found = yield from self.chosen(task, VIT, names)
        if found is not None:
          yield from self.compare("sources", task, listed(found))

  def targets(self) -> Step:
    """The core methods, trained on all domains but one."""
    names, listed = self.core()
    for target in self.scale.targets:
      task = self.pacs(target=target)
      by = task
      if not self.scale.whole:
        by = self.pacs(source=self.scale.sources[0])
      found = yield from self.chosen(by, VIT, names)
      if found is not None:
        yield from self.compare("targets", task, listed(found))

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
    for source in self.scale.sources:
      task = self.pacs(scale, source=source)
      found = yield from self.chosen(task, VIT, plan.OF_WORDS)
      if found is not None:
        yield from self.compare("words", task, plan.of_words(found))

  def sizes(self) -> Step:
    """The core methods on fewer images, at the rates of all images."""
    names, listed = self.core()
    source = self.scale.sources[0]
    found = yield from self.chosen(self.pacs(source=source), VIT, names)
    if found is None:
      return
    for count in self.scale.sizes:
      task = self.pacs(source=source, train_images=count)
      yield from self.compare("sizes", task, listed(found))

  def lengths(self) -> Step:
    """Full fine-tuning and GMixout for longer, at the rates of short runs."""
    source = self.scale.sources[0]
    found = yield from self.chosen(self.pacs(source=source), VIT, plan.PATIENT)
    if found is None:
      return
    for steps in self.scale.lengths:
      scale = dataclasses.replace(self.scale, steps=steps)
      task = self.pacs(scale, source=source)
      yield from self.compare("lengths", task, list(found.values()))

  def rule(self) -> Step:
    """GMixout's variants at several rates, to look at: nothing is chosen."""
    task, searched = self.ablated()
    _, middle, high = searched["full_finetuning"].rates
    cells = [
      Cell(task, method, plan.RATES_SEED)
      for rate in (middle, high, 10 * middle, 10 * high, 100 * middle)
      for method in plan.variants(searched["gmixout"].make(rate))
    ]
    yield Stage(cells, self.file("rule"))

  def ablations(self) -> Step:
    """The variants at the rate of the default; others of its size."""
    task, searched = self.ablated()
    found = yield from self.chosen(task, searched, ("gmixout",))
    if found is None:
      return
    variants = plan.variants(found["gmixout"])
    yield from self.compare("ablations", task, variants)
    others = ("full_finetuning", "random_mask", "lora")
    found = yield from self.chosen(task, searched, others)
    if found is not None:
      methods = [*found.values(), *plan.budgets(found)]
      yield from self.compare("ablations", task, methods)

  def ablated(self) -> tuple[Task, Rates]:
    """The task of the ablations, and the grids there."""
    if self.scale.whole:
      return self.pacs(source=self.scale.sources[0]), VIT
    return Digits(), CLIP

  def digits(self) -> Step:
    """Every method on the demo's task."""
    task = Digits()
    found = yield from self.chosen(task, CLIP, plan.ON_DIGITS)
    if found is not None:
      yield from self.compare("digits", task, plan.on_digits(found))

  def untrained(self) -> Step:
    """The core methods on the demo's task, from weights that know nothing."""
    task = Digits(pretrained=False)
    names, listed = self.core()
    found = yield from self.chosen(task, CLIP, names)
    if found is not None:
      yield from self.compare("untrained", task, listed(found))

  def chosen(
    self, task: Task, searched: Rates, names: tuple[str, ...]
  ) -> Generator[Stage, list[Record], dict[str, Method] | None]:
    """Each method at its best rate; None while one has not been run."""
    cells = list(plan.rates(task, searched, names))
    lines = yield Stage(cells, self.file("rates"))
    if len(lines) < len({cell.identity for cell in cells}):
      return None
    found = chosen(task, searched, names, lines)
    at_the_edge = [display_names.title(one) for one in edges(searched, found)]
    if at_the_edge:
      self.say(f"at the edge of their grids: {', '.join(at_the_edge)}.")
    return found
