"""Accuracy on lines and on a plane of weights."""

import dataclasses
from typing import Any

import numpy as np

from experiments import methods
from experiments.configs import demo
from experiments.diagnostics import landscape, members, options
from experiments.diagnostics.subject import Subject
from experiments.methods.settings import changed, parse_settings
from experiments.reporting import records
from experiments.run_options import check_seed

MOST_POINTS = 1000
"""A million evaluations of the plane."""

CORNERS = ("full_finetuning", "gmixout")
"""Of the plane, beside the weights that both start from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(options.Options):
  """Accuracy on lines and on the plane of zero-shot, fine-tuned and anchor.

  Where no words made the head, a linear probe is in the place of zero-shot. The
  lines are of full fine-tuning, of that of the blocks, of Mixout and GMixout;
  the plane is of the first and the last. Every point is one evaluation of all
  images.

  Attributes:
    seed: Of the runs.
    points: Of the lines, and per axis of the plane.
    set: Hyperparameters, NAME.FIELD=VALUE. On the digits they are the demo's
      unless they are given; elsewhere the learning rates of full_finetuning and
      gmixout must be, and another method has a line if its are.
  """

  seed: int = 0
  points: int = 9
  set: tuple[str, ...] = ()

  def check(self) -> None:
    """Whether numbers are in range.

    Raises:
      ValueError: If one is not.
    """
    check_seed(self.seed)
    if not 2 <= self.points <= MOST_POINTS:
      raise ValueError(
        f"--points must be from 2 to {MOST_POINTS}, got {self.points}."
      )

  def trained(self) -> dict[str, methods.Method]:
    """The methods by name, as they are to be trained.

    Raises:
      ValueError: If a setting is none of theirs, or a learning rate is missing.
    """
    given = parse_settings(self.set)
    known = {methods.name_of(m): m for m in demo.EXPERIMENT.methods[1:]}
    for name in given:
      if name not in known:
        raise ValueError(
          f"--set must be of one of {', '.join(known)}; got one of {name}."
        )
    if not self.is_of_digits:
      known = {k: m for k, m in known.items() if k in given or k in CORNERS}
      for name, method in known.items():
        _check_rates(name, method, given.get(name, {}))
    return {name: changed(method, given) for name, method in known.items()}

  def described(self) -> records.Record:
    """The configuration of its line; errors as of `trained`."""
    trained = map(methods.described, self.trained().values())
    return options.described(self.task()) | {
      "methods": records.plain([*trained])
    }


def weights(config: Config) -> records.Record:
  """Measures, and appends the line.

  Raises:
    ValueError: If what is asked for cannot be measured; see `Config`, and
      `Subject.of`.
  """
  config.check()
  trained = config.trained()
  task = config.task()
  described = config.described()
  subject = Subject.of(task, config.seed)
  steps = subject.opened.steps
  runs = {
    name: subject.collect(
      method,
      subject.prepared(method, config.seed),
      config.seed,
      every=steps,
      members_per_run=0,
    )
    for name, method in trained.items()
  }
  # All start from the same weights.
  initial = runs[CORNERS[0]].initial
  ends = {name: run.deployed for name, run in runs.items()}
  scorer = members.Scorer(subject.opened.model)

  def id_accuracy(weights: Any) -> float:
    return scorer.accuracy(weights, subject.id)

  def ood_accuracy(weights: Any) -> float:
    sets = subject.ood.values()
    return float(np.mean([scorer.accuracy(weights, split) for split in sets]))

  alpha = np.linspace(0, 1, config.points).round(4).tolist()
  lines = {
    name: {
      "id": landscape.line(id_accuracy, initial, end, alpha),
      "ood": landscape.line(ood_accuracy, initial, end, alpha),
    }
    for name, end in ends.items()
  }
  plane = landscape.Plane.through(initial, *(ends[name] for name in CORNERS))
  x, y = plane.grid(points=config.points)
  found: dict[str, Any] = {
    "alpha": alpha,
    "lines": lines,
    "plane": {
      "x": x.tolist(),
      "y": y.tolist(),
      "id": plane.scores(id_accuracy, x, y).tolist(),
      "ood": plane.scores(ood_accuracy, x, y).tolist(),
      "names": [
        "zero_shot" if subject.opened.zero_shot else "linear_probe",
        *CORNERS,
      ],
      "coordinates": plane.coordinates.tolist(),
    },
  }
  record = {
    "config": described,
    "seed": config.seed,
    **records.environment(),
    "landscape": found,
  }
  records.append(config.out, record)
  print(f"appended a line to {config.out}")
  return record


def _check_rates(
  name: str, method: methods.Method, given: dict[str, Any]
) -> None:
  """Whether all learning rates of a method are given."""
  for field in dataclasses.fields(method):
    if field.name.endswith("learning_rate") and field.name not in given:
      raise ValueError(
        f"--set {name}.{field.name}=RATE must be given: those of the digits are"
        " for the digits."
      )
