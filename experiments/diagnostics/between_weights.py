"""Accuracy on lines and on a plane of weights, on the digits."""

import pathlib
from typing import Any

import jax
import numpy as np

from experiments import methods
from experiments.configs import demo
from experiments.data import scanned_digits, shifts
from experiments.diagnostics import FILE, landscape, members
from experiments.methods.schedule import Schedule
from experiments.reporting import records
from experiments.run_options import check_results, check_seed
from experiments.tasks import digits
from experiments.training import compilation_cache
from gmixout_jax.checkpoint.files import local_path

MOST_POINTS = 1000
"""A million evaluations of the plane."""


def weights(
  seed: int = 0,
  steps: int = 150,
  points: int = 9,
  out: pathlib.Path = FILE,
) -> records.Record:
  """Accuracy on lines and on the plane of zero-shot, fine-tuned and anchor.

  Args:
    seed: Of the runs.
    steps: Optimizer steps per run.
    points: Of the lines, and per axis of the plane.
    out: The file that the line is appended to.

  Raises:
    ValueError: If a number is out of range, or `out` is a bucket or cannot be
      written.
  """
  out = local_path("--out", out)
  check_results(out, "out")
  check_seed(seed)
  Schedule(steps)  # refuses what is out of range
  if not 2 <= points <= MOST_POINTS:
    raise ValueError(f"--points must be from 2 to {MOST_POINTS}, got {points}.")
  parts = scanned_digits.load()
  model = digits.zero_shot_classifier()
  scorer = members.Scorer(model)
  targets = shifts.out_of_distribution(parts["test"])
  ends: dict[str, Any] = {}
  initial = None
  compilation_cache.keep()
  for method in demo.EXPERIMENT.methods[1:]:
    run = members.collect(
      method,
      model,
      digits.stream_of(parts["train"], seed=seed, steps=steps),
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
    **records.environment(),
    "landscape": found,
  }
  records.append(out, record)
  print(f"appended a line to {out}")
  return record
