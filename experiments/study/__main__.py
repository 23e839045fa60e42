"""Runs what is missing of the study, and skips what the result files hold.

  python -m experiments.study --root data/PACS --weights FILE --clip FOLDER
  python -m experiments.study --scale gpu ...
  python -m experiments.study --parts rule ablations

First every method's learning rate is chosen, from grids of one size, on the
validation images, with a seed of its own; then the parts are run with fresh
seeds. Each line is appended when its run ends, so the study can be stopped at
any time and started again. Several processes may work on it at once, here or on
machines that share the folders: each takes cells that no other has.
"""

import dataclasses
import pathlib
import sys
import time
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

import rich.console
import rich.progress
import tyro

from experiments import demo
from experiments.methods import Method
from experiments.reporting import display_names
from experiments.study import plan, scales
from experiments.study.choose import chosen, edges
from experiments.study.tasks import Digits, Setting
from experiments.study.work import Desk

Part = Literal[
  "sources", "targets", "words", "sizes", "lengths", "rule", "ablations",
  "digits", "untrained",
]  # fmt: skip


Listed = Callable[[plan.Chosen], list[Method]]


@dataclasses.dataclass(frozen=True)
class Config:
  """What to run.

  Attributes:
    scale: How large: "cpu" takes hours on two cores, "gpu" hours on a GPU.
    parts: "sources": every method, trained on one domain of PACS; "targets":
      the core methods, trained on all but one; "words": from a CLIP and its
      zero-shot head; "sizes": the core methods on fewer images;
      "lengths": full fine-tuning and GMixout for longer; "rule":
      GMixout's settings at five learning rates; "ablations": each setting at
      one rate, over seeds; "digits": every method on the demo's task;
      "untrained": the core methods there from random weights.
    root: PACS in DomainBed's layout.
    weights: The ViT: safetensors with timm's names.
    clip: The folder of a CLIP, as
      `experiments.pretraining.pretrain_clip` writes it.
    seeds: Of the runs; by default those of the scale.
    results: The folder of the result files.
    work: A folder for locks and compiled programs.
    minutes: When to begin no further run; by default there is no end.
  """

  scale: Literal["cpu", "gpu"] = "cpu"
  parts: tuple[Part, ...] = typing.get_args(Part)
  root: pathlib.Path = scales.PACS
  weights: pathlib.Path = scales.VIT
  clip: pathlib.Path = scales.CLIP
  seeds: tuple[int, ...] = ()
  results: pathlib.Path = pathlib.Path("experiments/results")
  work: pathlib.Path = pathlib.Path("runs/study")
  minutes: float = float("inf")


class Study:
  """The parts of the study, each of which says whether it is complete."""

  def __init__(self, config: Config, desk: Desk, console: rich.console.Console):
    self.scale = scales.SCALES[config.scale]
    if config.seeds:
      self.scale = dataclasses.replace(self.scale, seeds=config.seeds)
    self.config = config
    self.desk = desk
    self.console = console
    # Full fine-tuning's rates on PACS and on the digits, by the first looks.
    self.vit = plan.grids((1e-4, 3e-4, 1e-3))
    self.clip = plan.grids((3e-4, 1e-3, 3e-3))

  def name(self, part: str) -> str:
    """Of a result file."""
    return f"study_{part}_{self.scale.name}"

  def pacs(self, **which: Any) -> Setting:
    """A task on PACS at this scale."""
    return self.scale.on(self.config.root, self.config.weights, **which)

  def compare(
    self, part: str, setting: Setting, methods: Sequence[Method]
  ) -> bool:
    """Runs what a part lacks of some methods on a task, with every seed."""
    cells = plan.by_seed(setting, methods, self.scale.seeds)
    return self.desk.work(self.name(part), list(cells))

  def core(self) -> tuple[tuple[str, ...], Listed]:
    """The core methods beyond the first comparison, and how they are listed."""
    if self.scale.whole:
      return plan.CORE, plan.core
    return plan.BRIEF, plan.brief

  def sources(self) -> bool:
    """Every method, trained on one domain."""
    lists: dict[tuple[str, ...], Listed] = {plan.CORE: plan.core}
    if self.scale.whole:
      lists[plan.EVERY] = plan.every
    else:
      lists[plan.REDUCED] = plan.reduced
    done = True
    # The core methods first: if time is short, they are there.
    for names, listed in lists.items():
      for source in self.scale.sources:
        setting = self.pacs(source=source)
        found = self.chosen(setting, self.vit, names)
        if found is None:
          return False
        done &= self.compare("sources", setting, listed(found))
    return done

  def targets(self) -> bool:
    """The core methods, trained on all domains but one."""
    names, listed = self.core()
    done = True
    for target in self.scale.targets:
      setting = self.pacs(target=target)
      by = setting
      if not self.scale.whole:
        by = self.pacs(source=self.scale.sources[0])
      found = self.chosen(by, self.vit, names)
      if found is None:
        return False
      done &= self.compare("targets", setting, listed(found))
    return done

  def words(self) -> bool:
    """From a CLIP and its head of words, trained on one domain."""
    if not self.config.clip.is_dir():
      self.console.print(
        f"no folder {self.config.clip}: --clip must name a CLIP's, such as"
        " experiments.pretraining.pretrain_clip writes."
      )
      return False
    done = True
    size, steps = self.scale.of_words
    scale = dataclasses.replace(self.scale, image_size=size, steps=steps)
    for source in self.scale.sources:
      setting = scale.on(self.config.root, self.config.clip, source=source)
      found = self.chosen(setting, self.vit, plan.OF_WORDS)
      if found is None:
        return False
      done &= self.compare("words", setting, plan.of_words(found))
    return done

  def sizes(self) -> bool:
    """The core methods on fewer images, at the rates of all images."""
    names, listed = self.core()
    source = self.scale.sources[0]
    found = self.chosen(self.pacs(source=source), self.vit, names)
    if found is None:
      return False
    done = True
    for count in self.scale.sizes:
      setting = self.pacs(source=source, train_images=count)
      done &= self.compare("sizes", setting, listed(found))
    return done

  def lengths(self) -> bool:
    """Full fine-tuning and GMixout for longer, at the rates of short runs."""
    source = self.scale.sources[0]
    found = self.chosen(self.pacs(source=source), self.vit, plan.PATIENT)
    if found is None:
      return False
    done = True
    for steps in self.scale.lengths:
      scale = dataclasses.replace(self.scale, steps=steps)
      setting = scale.on(self.config.root, self.config.weights, source=source)
      done &= self.compare("lengths", setting, list(found.values()))
    return done

  def rule(self) -> bool:
    """GMixout's variants at several rates, to look at: nothing is chosen."""
    setting, searched = self.ablated()
    _, middle, high = searched["full_finetuning"].rates
    cells = [
      plan.Cell(setting, method, plan.RATES_SEED)
      for rate in (middle, high, 10 * middle, 10 * high, 100 * middle)
      for method in plan.variants(searched["gmixout"].make(rate))
    ]
    return self.desk.work(self.name("rule"), cells)

  def ablations(self) -> bool:
    """The variants at the rate of GMixout as it is; others as small."""
    setting, searched = self.ablated()
    found = self.chosen(setting, searched, ("gmixout",))
    if found is None:
      return False
    methods = plan.variants(found["gmixout"])
    done = self.compare("ablations", setting, methods)
    others = ("full_finetuning", "random_mask", "lora")
    found = self.chosen(setting, searched, others)
    if found is None:
      return False
    methods = [*found.values(), *plan.budgets(found)]
    return self.compare("ablations", setting, methods) and done

  def ablated(self) -> tuple[Setting, dict[str, plan.Grid]]:
    """The task of the ablations, and the grids there."""
    if self.scale.whole:
      return self.pacs(source=self.scale.sources[0]), self.vit
    return Digits(), self.clip

  def digits(self) -> bool:
    """Every method on the demo's task."""
    setting = Digits()
    found = self.chosen(setting, self.clip, plan.ON_DIGITS)
    if found is None:
      return False
    return self.compare("digits", setting, plan.on_digits(found))

  def untrained(self) -> bool:
    """The core methods on the demo's task, from weights that know nothing."""
    setting = Digits(pretrained=False)
    names, listed = self.core()
    found = self.chosen(setting, self.clip, names)
    if found is None:
      return False
    return self.compare("untrained", setting, listed(found))

  def chosen(
    self,
    setting: Setting,
    searched: dict[str, plan.Grid],
    names: tuple[str, ...],
  ) -> dict[str, Method] | None:
    """Each method at its best rate; None while one has not been run."""
    name = self.name("rates")
    cells = list(plan.rates(setting, searched, names))
    if not self.desk.work(name, cells):
      return None
    found = chosen(setting, searched, names, self.desk.lines(name))
    at_the_edge = [display_names.title(one) for one in edges(searched, found)]
    if at_the_edge:
      self.console.print(
        f"at the edge of their grids: {', '.join(at_the_edge)}."
      )
    return found


def main(config: Config) -> None:
  """Runs the parts in order and says what is left."""
  console = rich.console.Console()
  left = []
  with (
    demo.shared_compilations(config.work / "compiled"),
    rich.progress.Progress(console=console) as bar,
  ):
    desk = Desk(
      config.results,
      config.work / "locks",
      bar,
      deadline=time.monotonic() + 60 * config.minutes,
    )
    study = Study(config, desk, console)
    for part in config.parts:
      try:
        if not getattr(study, part)():
          left.append(part)
      except (OSError, ValueError) as error:
        bar.stop()
        sys.exit(f"error: {error}")  # what the user gave is wrong
  console.print(f"result files: {config.results}/study_*_{config.scale}.jsonl")
  if left:
    console.print(
      f"not complete: {', '.join(left)}; the same command goes on there."
    )


if __name__ == "__main__":
  main(tyro.cli(Config, description=__doc__))
