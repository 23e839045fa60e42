"""Bias, variance, covariance and locality against a setting, on the digits."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import rich
import rich.progress
import tyro

from experiments import metrics
from experiments.data import scanned_digits, shifts
from experiments.diagnostics import FILE, members
from experiments.diagnostics.slow_mixout import SlowMixout
from experiments.methods.gmixout import GMixout
from experiments.methods.schedule import Schedule
from experiments.reporting import records
from experiments.run_options import check_results, check_seed
from experiments.tasks import digits
from experiments.training import compilation_cache
from gmixout_jax.checkpoint.files import local_path

METHODS: dict[str, GMixout | SlowMixout] = {
  "gmixout": GMixout(learning_rate=1e-2, head_learning_rate=1e-4),
  "mixout": SlowMixout(learning_rate=1e-3, head_learning_rate=1e-4),
}
"""With the learning rates of the demo."""

Knob = Literal[
  "sparsity", "anchor_decay", "resample_every", "sampler", "moments"
]
_OF_WORDS = ("sampler", "moments")


def bvcl(
  method: tyro.conf.Positional[Literal["gmixout", "mixout"]],
  knob: Knob = "sparsity",
  values: tuple[float | str, ...] = (0.5, 0.8, 0.9, 0.95),
  seeds: tuple[int, ...] = (0, 1, 2),
  members_per_run: int = 4,
  every: int = 20,
  steps: int = 160,
  falling: bool = False,
  out: pathlib.Path = FILE,
) -> list[records.Record]:
  """Bias, variance, covariance and locality against a setting.

  Args:
    method: Whose live weights are the members.
    knob: The setting to vary: p, λ, k, how masks are drawn, or what becomes of
      GMixout's moments.
    values: Of it; of the last two, words.
    seeds: Independent runs, at least three.
    members_per_run: The last of each, at least two.
    every: Steps between members: a multiple of k, so that each is the end of an
      episode, and the same for all k, so that they are as far apart.
    steps: Optimizer steps per run, a multiple of `every`.
    falling: Whether the learning rate falls to 0 as in training. Members are
      then one model, nearly; by default it is held after the warm-up.
    out: The file that a line per value is appended to.

  Returns:
    The lines that were appended.

  Raises:
    ValueError: If there are too few seeds or members, a value or a seed twice,
      if `out` is a bucket or cannot be written, if steps, `every` and k
      do not divide each other, or if the method has no such setting.
  """
  out = local_path("--out", out)
  check_results(out, "out")
  for seed in seeds:
    check_seed(seed)
  for name, given in (("--values", values), ("--seeds", seeds)):
    if len(set(given)) != len(given):
      raise ValueError(f"{name} must differ, got {given}.")
  if every < 1:
    raise ValueError(f"every must be at least 1 step, got {every}.")
  tried = _settings(method, knob, values, every)
  if steps % every or members_per_run > steps // every:
    raise ValueError(
      "steps must be a multiple of every, of at least as many times it as"
      f" members; got {steps}, {every} and {members_per_run}."
    )
  if len(seeds) < 3 or members_per_run < 2:
    raise ValueError(
      "at least three seeds and two members per run are wanted, for intervals"
      f" and pairs; got {len(seeds)} and {members_per_run}."
    )
  schedule = Schedule(steps, constant=not falling)
  parts = scanned_digits.load()
  model = digits.zero_shot_classifier()
  targets = shifts.out_of_distribution(parts["test"])
  done = [_identity(r) for r in records.read(out)] if out.is_file() else []
  results = []
  total = len(tried) * (len(seeds) + 1)
  compilation_cache.keep()
  with rich.progress.Progress() as bar:
    task = bar.add_task(f"{method}, {knob}", total=total)
    for setting, value in zip(tried, values, strict=True):
      plan: records.Record = {
        "config": {
          "method": {"name": method, **records.plain(setting)},
          "data": "scanned_digits",
          "steps": steps,
          "every": every,
          "members": members_per_run,
          "rate": "falling" if falling else "held",
        },
        "seeds": list(seeds),
      }
      if _identity(plan) in done:
        bar.advance(task, len(seeds) + 1)
        continue
      runs = []
      for seed in seeds:
        run = members.collect(
          setting,
          model,
          digits.stream_of(parts["train"], seed=seed, steps=steps),
          steps=steps,
          every=every,
          members=members_per_run,
          key=jax.random.key(seed),
          schedule=schedule,
        )
        runs.append(run)
        bar.advance(task)
      found = members.diagnose(
        runs, members.Scorer(model), {"id": parts["test"], **targets}
      )
      bar.advance(task)
      options = f"--steps {steps} --every {every}" + " --falling" * falling
      record = {
        **plan,
        "command": f"python -m experiments.diagnostics bvcl {method} --knob"
        f" {knob} --values {value} --seeds {' '.join(map(str, seeds))}"
        f" --members-per-run {members_per_run} {options}",
        **records.environment(),
        "bvcl": summary(found, list(targets)),
      }
      records.append(out, record)
      results.append(record)
  print(f"appended {len(results)} lines to {out}")
  return results


def _settings(
  method: str, knob: str, values: Sequence[float | str], every: int
) -> list[GMixout | SlowMixout]:
  """The method with each value; ValueError if episodes do not fit `every`."""
  if not hasattr(METHODS[method], knob):
    raise ValueError(f"{method} has no setting {knob!r}.")
  tried = []
  for value in values:
    if isinstance(value, str) != (knob in _OF_WORDS):
      kind = "words" if knob in _OF_WORDS else "numbers"
      raise ValueError(f"values of {knob} must be {kind}, got {value!r}.")
    number: Any = value
    if knob == "resample_every":
      if not float(value).is_integer():
        raise ValueError(
          f"values of resample_every must be whole numbers, got {value!r}."
        )
      number = int(value)
    setting = dataclasses.replace(METHODS[method], **{knob: number})
    if setting.resample_every < 1 or every % setting.resample_every:
      raise ValueError(
        "resample_every must be at least 1 and divide every, got"
        f" {setting.resample_every} and {every}."
      )
    tried.append(setting)
  return tried


def _identity(record: records.Record) -> Any:
  return record.get("config"), record.get("seeds")


def summary(found: Mapping[str, Any], ood: Sequence[str]) -> records.Record:
  """Means with 95 % intervals over runs, of what `members.diagnose` found.

  Args:
    found: Its result, with a set called "id".
    ood: The sets to average over, run by run.

  Returns:
    ``id``, ``ood``, each shift under ``sets``, and ``weights``: mean, low and
    high by term; None for a term that no run or no set defines.
    ``angle_of_runs`` as it was.
  """
  sets = found["sets"]

  def over_sets(term: str) -> list[float | None]:
    values = np.array([sets[name][term] for name in ood], float)
    # A run counts where every set is defined, so that runs compare.
    return [None if np.isnan(m) else float(m) for m in values.mean(axis=0)]

  away = {term: over_sets(term) for term in sets["id"]}
  return {
    "id": _intervals(sets["id"]),
    "ood": _intervals(away),
    "sets": {name: _intervals(sets[name]) for name in ood},
    "weights": _intervals(found["weights"]),
    "angle_of_runs": found["angle_of_runs"],
  }


def _intervals(
  terms: Mapping[str, Sequence[float | None]],
) -> dict[str, Mapping[str, float] | None]:
  found = {}
  for term, values in terms.items():
    defined = [value for value in values if value is not None]
    if len(defined) < 2:
      found[term] = None
      continue
    mean, low, high = metrics.interval(defined)[:3]
    found[term] = {
      # Six digits: more would only make the file longer.
      name: float(f"{value:.6g}")
      for name, value in (("mean", mean), ("low", low), ("high", high))
    }
  return found
