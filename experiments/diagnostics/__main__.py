"""Runs a diagnostic on the demo's task: scanned digits and eight shifts.

    python -m experiments.diagnostics bvcl gmixout --values 0.5 0.8 0.9 0.95
    python -m experiments.diagnostics landscape

bvcl measures bias, variance, covariance and locality against a setting of the
method; landscape measures accuracy on lines and a plane of weights.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
import rich
import tyro

from experiments import demo, methods, probe, results
from experiments.data import scanned_digits, shifts
from experiments.data.split import Split, batches, stream
from experiments.diagnostics import landscape, members, pictures
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.mixout import Mixout

_TERMS = (
  "bias2", "variance", "covariance", "drift", "ensemble", "member", "average",
  "deployed", "residual", "disagreement", "ratio_error", "cka_1m",
)  # fmt: skip


def bvcl(
  method: tyro.conf.Positional[Literal["gmixout", "mixout"]],
  knob: Literal["sparsity", "anchor_decay", "resample_every"] = "sparsity",
  values: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95),
  seeds: tuple[int, ...] = (0, 1, 2),
  members_per_run: int = 4,
  steps: int = 150,
  out: pathlib.Path = pathlib.Path("runs/diagnostics"),
) -> list[results.Record]:
  """Bias, variance, covariance and locality against a setting.

  Args:
    method: Whose episodes are the members. Mixout redraws at every step: its
      members are 10 steps apart.
    knob: The setting to vary; Mixout has sparsity alone.
    values: Of it.
    seeds: Independent runs, at least two.
    members_per_run: The last episodes of each.
    steps: Optimizer steps per run; rounded down to whole episodes.
    out: The folder for bvcl_<method>_<knob>.jsonl and .png.
  """
  base = next(m for m in demo.METHODS if methods.name_of(m) == method)
  if isinstance(base, GMixout):
    base = dataclasses.replace(base, resample_every=10)
  parts = scanned_digits.load()
  model = demo.zero_shot_classifier()
  targets = shifts.out_of_distribution(parts["test"])
  sets = {"id": parts["test"], **targets}
  path = out / f"bvcl_{method}_{knob}.jsonl"
  path.unlink(missing_ok=True)
  records = []
  with demo.shared_compilations():
    for value in values:
      setting: Any = int(value) if knob == "resample_every" else value
      tried = dataclasses.replace(base, **{knob: setting})
      every = tried.resample_every if isinstance(tried, GMixout) else 10
      if not isinstance(every, int):
        raise ValueError(f"resample_every must be a number, got {every}.")
      whole = steps - steps % every
      runs = [
        members.collect(
          tried,
          model,
          _stream(parts["train"], seed, whole),
          steps=whole,
          every=every,
          members=members_per_run,
          key=jax.random.key(seed),
        )
        for seed in seeds
      ]
      found = members.diagnose(
        runs, members.Scorer(model), dict(sets), probe.features
      )
      record = _record(tried, found, list(targets), whole, every, seeds)
      results.append(path, record)
      records.append(record)
      rich.print(f"{method}, {knob} {setting}:", _short(record["metrics"]))
  pictures.terms(records, knob, path.with_suffix(".png"))
  rich.print(f"wrote {path} and {path.with_suffix('.png')}")
  return records


def _stream(train: Split, seed: int, steps: int):
  dataset = batches(train, batch_size=64, seed=seed, augmented=False)
  return stream(dataset, 0, steps)


def _record(
  method: methods.Method,
  found: Mapping[str, Any],
  ood: list[str],
  steps: int,
  every: int,
  seeds: tuple[int, ...],
) -> results.Record:
  sets = found["sets"]

  def mean(term: str) -> float | None:
    defined = [sets[s][term] for s in ood if sets[s].get(term) is not None]
    return float(np.mean(defined)) if defined else None

  return {
    "config": {
      "method": {"name": methods.name_of(method), **results.plain(method)},
      "data": "scanned_digits",
      "steps": steps,
      "every": every,
    },
    "seeds": list(seeds),
    **results.environment(),
    "metrics": {
      "id": sets["id"],
      "ood": {term: mean(term) for term in _TERMS},
      **found,
    },
  }


def _short(metrics: Mapping[str, Any]) -> str:
  parts = [
    f"{name} {term} {metrics[name][term]:.4f}"
    for name in ("id", "ood")
    for term in ("bias2", "variance", "covariance", "residual")
  ]
  return ", ".join(parts)


def weights(
  seed: int = 0,
  steps: int = 150,
  points: int = 9,
  out: pathlib.Path = pathlib.Path("runs/diagnostics"),
) -> results.Record:
  """Accuracy on lines and on the plane of zero-shot, fine-tuned and anchor.

  Args:
    seed: Of the runs.
    steps: Optimizer steps per run.
    points: Of the lines, and per axis of the plane.
    out: The folder for landscape.jsonl, line.png and plane.png.
  """
  parts = scanned_digits.load()
  model = demo.zero_shot_classifier()
  scorer = members.Scorer(model)
  targets = shifts.out_of_distribution(parts["test"])
  ends: dict[str, Any] = {}
  initial = None
  with demo.shared_compilations():
    for method in demo.METHODS:
      if not isinstance(method, FullFinetuning | GMixout | Mixout):
        continue
      run = members.collect(
        method,
        model,
        _stream(parts["train"], seed, steps),
        steps=steps,
        every=steps,
        members=1,
        key=jax.random.key(seed),
      )
      initial = run.initial
      ends[methods.name_of(method)] = run.deployed

  def home(weights: Any) -> float:
    return scorer.accuracy(weights, parts["test"])

  def away(weights: Any) -> float:
    return float(
      np.mean([scorer.accuracy(weights, split) for split in targets.values()])
    )

  alpha = np.linspace(0, 1, points).round(4).tolist()
  lines = {
    name: {
      "id": landscape.line(home, initial, end, alpha),
      "ood": landscape.line(away, initial, end, alpha),
    }
    for name, end in ends.items()
  }
  plane = landscape.Plane.through(
    initial, ends["full_finetuning"], ends["gmixout"]
  )
  x, y = plane.grid(points=points)
  found: dict[str, Any] = {
    "alpha": alpha,
    "lines": lines,
    "plane": {
      "x": x.tolist(),
      "y": y.tolist(),
      "id": plane.scores(home, x, y).tolist(),
      "ood": plane.scores(away, x, y).tolist(),
      "names": ["zero_shot", "full_finetuning", "gmixout"],
      "coordinates": plane.coordinates.tolist(),
    },
  }
  record = {
    "config": {"data": "scanned_digits", "steps": steps},
    "seed": seed,
    **results.environment(),
    "landscape": found,
  }
  (out / "landscape.jsonl").unlink(missing_ok=True)
  results.append(out / "landscape.jsonl", record)
  pictures.line(found, out / "line.png")
  pictures.plane(found["plane"], out / "plane.png")
  rich.print(f"wrote landscape.jsonl, line.png and plane.png in {out}")
  return record


if __name__ == "__main__":
  tyro.extras.subcommand_cli_from_dict(
    {"bvcl": bvcl, "landscape": weights},
    prog="python -m experiments.diagnostics",
    description=__doc__,
  )
