"""Bias, variance, covariance and locality against a setting of a method."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import rich.progress

from experiments import metrics
from experiments.diagnostics import diversity, members, options
from experiments.diagnostics.one_setting import Config, Setting
from experiments.diagnostics.subject import Subject
from experiments.reporting import records
from experiments.reporting.identity import canonical
from experiments.tasks.task import Task

Missing = tuple[records.Record, Setting, float | str]
"""The beginning of a line, the method, and the value as it was given."""


def plan_of(
  config: Config, setting: Setting, task: records.Record
) -> records.Record:
  """The beginning of a line, by which it is found again.

  Args:
    config: What is asked for.
    setting: The method with one of the values.
    task: From `options.described`.
  """
  return {
    "config": {
      "method": {"name": config.method, **_described(setting)},
      **task,
      "every": config.every,
      "members": config.members_per_run,
      "members_are": "subnetworks",  # of 0.1.0, what was left after an episode
      "rate": "falling" if config.falling else "held",
    },
    "seeds": list(config.seeds),
  }


def identity(record: records.Record) -> str:
  """What a line is found again by."""
  config = records.comparable(record["config"])
  return canonical([config, record.get("seeds")])


def bvcl(config: Config) -> list[records.Record]:
  """Measures what the file has no line of, and appends it.

  Returns:
    The lines that were appended.

  Raises:
    ValueError: If what is asked for cannot be measured; see `Config`, and
      `Subject.of`.
  """
  config.check()
  tried = config.tried()
  task = config.task()
  described = options.described(task)
  if "steps" in described:  # else the images decide
    config.check_steps(described["steps"])
  out = config.out
  lines = records.read(out) if out.is_file() else []
  done = {identity(r) for r in lines if isinstance(r.get("config"), dict)}
  missing = [
    (plan, setting, value)
    for setting, value in zip(tried, config.values, strict=True)
    if identity(plan := plan_of(config, setting, described)) not in done
  ]
  results = _appended(config, task, missing) if missing else []
  print(f"appended {len(results)} lines to {out}")
  return results


def _appended(
  config: Config, task: Task, missing: Sequence[Missing]
) -> list[records.Record]:
  """The lines of what is missing, each appended when it is measured."""
  subject = Subject.of(task, config.seeds[0])
  config.check_steps(subject.opened.steps)
  _check_sizes(subject)
  results = []
  with rich.progress.Progress() as bar:
    row = bar.add_task(
      f"{config.method}, {config.knob}",
      total=len(missing) * (len(config.seeds) + 1),
    )
    for plan, setting, value in missing:
      found = _measured(config, subject, setting, lambda: bar.advance(row))
      command = {}
      if config.is_of_digits:
        command = {"command": config.command(value, subject.opened.steps)}
      record = {
        **plan,
        **command,
        **records.environment(),
        "bvcl": summary(found, list(subject.ood)),
      }
      records.append(config.out, record)
      results.append(record)
  return results


def _measured(
  config: Config,
  subject: Subject,
  setting: Setting,
  advance: Callable[[], None],
) -> dict[str, Any]:
  """What `members.diagnose` says of a setting."""
  prepared = subject.prepared(setting, config.seeds[0])
  runs = []
  for seed in config.seeds:
    runs.append(
      subject.collect(
        setting,
        prepared,
        seed,
        every=config.every,
        members_per_run=config.members_per_run,
        held=not config.falling,
      )
    )
    advance()
  scorer = members.Scorer(setting.export(prepared))
  found = members.diagnose(runs, scorer, {"id": subject.id, **subject.ood})
  advance()
  return found


def _check_sizes(subject: Subject) -> None:
  """Before hours of training, for what is measured after them."""
  for name, images in {"ID": subject.id, **subject.ood}.items():
    if len(images) < diversity.FEWEST:
      raise ValueError(
        f"features are compared on at least {diversity.FEWEST} images, but the"
        f" {name} images are {len(images)}."
      )


def _described(setting: Setting) -> records.Record:
  """Its settings, but those that change no weights."""
  return {
    field.name: getattr(setting, field.name)
    for field in dataclasses.fields(setting)
    if field.compare
  }


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

  ood_terms = {term: over_sets(term) for term in sets["id"]}
  return {
    "id": _intervals(sets["id"]),
    "ood": _intervals(ood_terms),
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
