"""Metrics of predictions, and their uncertainty.

Plain functions of NumPy arrays, for any classifier from any library: nothing
here knows models, files or methods.

  select            logits of a set's classes, from those of a larger head
  accuracy          top-1, per class, many / medium / few, macro-F1
  calibration       ECE, Brier score, NLL, reliability bins
  robustness        per domain, worst, corruptions, relative robustness
  retrieval         recall between images and captions
  selection         the one-standard-error rule
  seeds             intervals over seeds, paired tests between methods
"""

from experiments.metrics.accuracy import (
  by_group,
  groups_by_count,
  macro_f1,
  mean_per_class,
  per_class,
  top1,
)
from experiments.metrics.calibration import (
  Reliability,
  brier,
  nll,
  reliability,
  softmax,
)
from experiments.metrics.retrieval import recall
from experiments.metrics.robustness import (
  mean_corruption_accuracy,
  out_of_distribution,
  relative_robustness,
)
from experiments.metrics.seeds import (
  Interval,
  Paired,
  interval,
  paired,
)
from experiments.metrics.select import select
from experiments.metrics.selection import one_standard_error, standard_error

__all__ = [
  "Interval",
  "Paired",
  "Reliability",
  "brier",
  "by_group",
  "groups_by_count",
  "interval",
  "macro_f1",
  "mean_corruption_accuracy",
  "mean_per_class",
  "nll",
  "one_standard_error",
  "out_of_distribution",
  "paired",
  "per_class",
  "recall",
  "relative_robustness",
  "reliability",
  "select",
  "softmax",
  "standard_error",
  "top1",
]
