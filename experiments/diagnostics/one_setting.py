"""Flags of bvcl: a method, one of its settings, and the values to try."""

import dataclasses
from typing import Any, Literal, get_args

import tyro

from experiments.diagnostics.options import Options
from experiments.diagnostics.slow_mixout import SlowMixout
from experiments.methods.gmixout import GMixout
from experiments.methods.mixed import Sampler
from experiments.run_options import check_seed

Setting = GMixout | SlowMixout

METHODS: dict[str, Setting] = {
  "gmixout": GMixout(learning_rate=2.5e-2, head_learning_rate=1e-4),
  "mixout": SlowMixout(learning_rate=1e-3, head_learning_rate=1e-4),
}
"""As in the demo."""

Knob = Literal[
  "sparsity",
  "anchor_decay",
  "resample_every",
  "sampler",
  "moments",
  "rescale",
]
_WORDS: dict[str, dict[str, Any]] = {
  "sampler": {word: word for word in get_args(Sampler)},
  "moments": {"carry": "carry", "reset": "reset"},
  "rescale": {"true": True, "false": False},
}
"""Settings whose values are words, and what these stand for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Options):
  """Bias, variance, covariance and locality against a setting.

  Steps must be a multiple of --every; on the digits there are 160. All seeds
  see the same images, see `experiments.diagnostics.subject`.

  Attributes:
    method: Whose sub-networks are the members, each taken one step before the
      end of an episode.
    knob: The setting to vary: p, λ, k, how masks are drawn, what becomes of
      GMixout's moments, or whether it rescales.
    values: Of it; of the last three, words ("true" and "false" of the last).
    learning_rate: The peak, for the mixed matrices: on the digits the demo's
      unless it is given, elsewhere it must be.
    head_learning_rate: Likewise, for the head.
    seeds: Independent runs, at least three.
    members_per_run: The last of each, at least two.
    every: Steps between members: a multiple of k, so that each is the end of an
      episode, and the same for all k, so that they are as far apart.
    falling: Whether the learning rate falls to 0 as in training. Members are
      then one model, nearly; by default it is held after the warm-up.
  """

  method: tyro.conf.Positional[Literal["gmixout", "mixout"]]
  knob: Knob = "sparsity"
  values: tuple[float | str, ...] = (0.5, 0.8, 0.9, 0.95)
  learning_rate: float | None = None
  head_learning_rate: float | None = None
  seeds: tuple[int, ...] = (0, 1, 2)
  members_per_run: int = 4
  every: int = 20
  falling: bool = False
  steps_on_digits = 160

  def check(self) -> None:
    """Whether what is asked for can be measured, as far as flags tell.

    Raises:
      ValueError: If there are too few seeds or members, a value or a seed
        twice, or a schedule for a rate that is held.
    """
    for seed in self.seeds:
      check_seed(seed)
    for name, given in (("--values", self.values), ("--seeds", self.seeds)):
      if len(set(given)) != len(given):
        raise ValueError(f"{name} must differ, got {given}.")
    if self.every < 1:
      raise ValueError(f"every must be at least 1 step, got {self.every}.")
    if len(self.seeds) < 3 or self.members_per_run < 2:
      raise ValueError(
        "at least three seeds and two members per run are wanted, for intervals"
        f" and pairs; got {len(self.seeds)} and {self.members_per_run}."
      )
    shape = self.training.schedule
    if shape != "cosine" and not self.falling:
      raise ValueError(
        f"--schedule {shape} has no meaning for a learning rate that is held:"
        " leave it out, or add --falling."
      )

  def check_steps(self, steps: int) -> None:
    """Whether the members of a run are as many, and as far apart, as asked.

    Raises:
      ValueError: If not.
    """
    if steps % self.every or self.members_per_run > steps // self.every:
      raise ValueError(
        "steps must be a multiple of every, of at least as many times it as"
        f" members; got {steps}, {self.every} and {self.members_per_run}."
      )

  def tried(self) -> list[Setting]:
    """The method with each value.

    Raises:
      ValueError: If it has no such setting or value, lacks a learning rate, or
        its episodes do not fit `every`.
    """
    method = self._with_rates()
    if not hasattr(method, self.knob):
      raise ValueError(f"{self.method} has no setting {self.knob!r}.")
    tried = []
    for value in self.values:
      changed: Any = {self.knob: self._read(value)}
      setting = dataclasses.replace(method, **changed)
      if setting.resample_every < 1 or self.every % setting.resample_every:
        raise ValueError(
          "resample_every must be at least 1 and divide every, got"
          f" {setting.resample_every} and {self.every}."
        )
      if setting.resample_every == 1 and self.method == "gmixout":
        raise ValueError(
          "resample_every must be at least 2 for gmixout, whose weights are at"
          " the anchor before and after an episode of one step; got 1."
        )
      tried.append(setting)
    return tried

  def _with_rates(self) -> Setting:
    given: Any = {}
    for name in ("learning_rate", "head_learning_rate"):
      if (rate := getattr(self, name)) is not None:
        given[name] = rate
      elif not self.is_of_digits:
        raise ValueError(
          f"--{name.replace('_', '-')} must be given: those of the digits are"
          " for the digits."
        )
    return dataclasses.replace(METHODS[self.method], **given)

  def _read(self, value: float | str) -> Any:
    """A value as the method holds it."""
    if (words := _WORDS.get(self.knob)) is not None:
      if value not in words:
        raise ValueError(
          f"values of {self.knob} must be words, some of {', '.join(words)};"
          f" got {value!r}."
        )
      return words[str(value)]
    if isinstance(value, str):
      raise ValueError(f"values of {self.knob} must be numbers, got {value!r}.")
    if self.knob != "resample_every":
      return value
    if not float(value).is_integer():
      raise ValueError(
        f"values of resample_every must be whole numbers, got {value!r}."
      )
    return int(value)

  def command(self, value: float | str, steps: int) -> str:
    """What measures one value on the digits."""
    rates = {
      name: getattr(self, name)
      for name in ("learning_rate", "head_learning_rate")
      if getattr(self, name) is not None
    }
    batch = {} if self.batch_size is None else {"batch_size": self.batch_size}
    more = "".join(
      f" --{name.replace('_', '-')} {given}"
      for name, given in (rates | batch | self.training.described()).items()
    )
    return (
      f"python -m experiments.diagnostics bvcl {self.method}"
      f" --knob {self.knob} --values {value}"
      f" --seeds {' '.join(map(str, self.seeds))}"
      f" --members-per-run {self.members_per_run}"
      f" --steps {steps} --every {self.every}{more}"
      + " --falling"
      * self.falling
    )
