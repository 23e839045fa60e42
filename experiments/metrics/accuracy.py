"""Accuracy, over images and over classes."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

Labels = Int[np.ndarray, " n"]


def _check(predictions: Labels, labels: Labels) -> tuple[Labels, Labels]:
  predictions, labels = np.asarray(predictions), np.asarray(labels)
  if predictions.shape != labels.shape or labels.ndim != 1 or not labels.size:
    raise ValueError(
      "predictions and labels must be two vectors of one length of at least 1,"
      f" got shapes {predictions.shape} and {labels.shape}."
    )
  return predictions, labels


def top1(predictions: Labels, labels: Labels) -> float:
  """The share of predictions that are right, in [0, 1].

  Raises:
    ValueError: On vectors of different or no length, as everywhere here.
  """
  predictions, labels = _check(predictions, labels)
  return float(np.mean(predictions == labels))


def per_class(
  predictions: Labels, labels: Labels, *, classes: int
) -> Float[np.ndarray, " classes"]:
  """Accuracy on the images of each class; NaN for a class without images."""
  predictions, labels = _check(predictions, labels)
  if labels.min() < 0 or labels.max() >= classes:
    raise ValueError(
      f"labels must be 0 to {classes - 1}, got {labels.min()} to"
      f" {labels.max()}."
    )
  total = np.bincount(labels, minlength=classes)
  right = np.bincount(labels[predictions == labels], minlength=classes)
  return np.where(total > 0, right / np.maximum(total, 1), np.nan)


def mean_per_class(
  predictions: Labels, labels: Labels, *, classes: int
) -> float:
  """The mean of `per_class` over the classes that have images."""
  return float(np.nanmean(per_class(predictions, labels, classes=classes)))


def groups_by_count(
  train_counts: Int[np.ndarray, " classes"],
) -> Mapping[str, Bool[np.ndarray, " classes"]]:
  """Classes by how many images they have in training, as on ImageNet-LT.

  "many" is more than 100, "medium" 20 to 100, both included, and "few" less
  than 20. Some code (OLTR) has "many" from 100 and "few" up to 20.

  Returns:
    Masks over classes; report the mean of `per_class` under each.
  """
  counts = np.asarray(train_counts)
  return {
    "many": counts > 100,
    "medium": (counts >= 20) & (counts <= 100),
    "few": counts < 20,
  }


def by_group(
  predictions: Labels,
  labels: Labels,
  train_counts: Int[np.ndarray, " classes"],
) -> dict[str, float]:
  """The mean of `per_class` over many-, medium- and few-shot classes.

  Args:
    predictions: Of the test images.
    labels: Of the test images.
    train_counts: How many training images every class has.

  Returns:
    Accuracy by the names of `groups_by_count`, without a group of which no
    class has test images.

  Example:
    >>> import numpy as np
    >>> labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    >>> by_group(predictions, labels, np.array([500, 50, 5]))
    {'many': 0.5, 'medium': 1.0, 'few': 0.0}
  """
  each = per_class(predictions, labels, classes=len(train_counts))
  seen = ~np.isnan(each)
  return {
    name: float(each[mask & seen].mean())
    for name, mask in groups_by_count(train_counts).items()
    if (mask & seen).any()
  }


def macro_f1(predictions: Labels, labels: Labels) -> float:
  """The mean of F1 over the classes that have images, in [0, 1].

  As on iWildCam, where most test splits lack some species: a class that is
  only ever predicted counts through the precision of the others.

  References:
    Koh et al., 2021, https://arxiv.org/abs/2012.07421.
  """
  # By scikit-learn it would be the same, after four seconds of importing that.
  predictions, labels = _check(predictions, labels)
  classes = int(max(predictions.max(), labels.max())) + 1
  hits, true, predicted = (
    np.bincount(found, minlength=classes)
    for found in (labels[predictions == labels], labels, predictions)
  )
  seen = true > 0
  return float(np.mean(2 * hits[seen] / (true[seen] + predicted[seen])))
