"""Result lines as sweeps of learning rates write them."""

from experiments.methods import METHODS, described, from_name

COUNT = [0] * 14 + [400]
"""Bins of 400 images."""


def line(
  method, seed, *, top1=0.9, brier=0.2, ood=0.6, data="digits", **changes
):
  """A run.

  Args:
    method: A method, or its name for the default configuration.
    seed: Of it.
    top1: ID accuracy.
    brier: Of the ID images.
    ood: Mean OOD accuracy.
    data: The task's images.
    **changes: Of the configuration, such as steps.
  """
  if isinstance(method, str):
    method = from_name(method) if method.split("+")[0] in METHODS else method
  id_details = {
    "top1": top1,
    "brier": brier,
    "ece": 0.1,
    "reliability": {
      "count": COUNT, "accuracy": [0.0] * 14 + [top1],
      "confidence": [0.0] * 14 + [0.95],
    },
  }  # fmt: skip
  return {
    "config": {"method": described(method), "data": data, "steps": 100}
    | changes,
    "seed": seed,
    "metrics": {
      "id": top1,
      "ood": {"night": ood},
      "mean_ood": ood,
      "worst_ood": ood,
      "details": {"id": id_details},
    },
    "progress_bound": method.progress_bound(100),
    "stats": {
      "steps": 100,
      "steps_per_second": 2.0,
      "changed_parameters": 10,
      "optimizer_bytes": 3 << 20,
      "reduced_bytes": 1 << 20,
      "step_flops": 1e9,
      "step_peak_bytes": 1 << 24,
    },
  }
