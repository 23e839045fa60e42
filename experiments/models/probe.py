"""A linear probe: logistic regression on frozen features.

It fits the head that fine-tuning starts from. Fine-tuning from a random head
distorts the features while the head is still wrong (Kumar et al., 2022,
https://arxiv.org/abs/2202.10054).
"""

import functools
import warnings
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from threadpoolctl import threadpool_limits

from experiments.data.images import ImageSet
from experiments.data.source import Source
from experiments.data.split import Split
from experiments.models import evaluation
from experiments.models.classifier import Classifier, linear

# The inverse strength of the L2 penalty, weak last: of equals the strongest
# penalty wins.
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@functools.partial(jax.jit, static_argnames="graphdef")
def _features(graphdef: Any, state: Any, images: Array) -> Array:
  return nnx.merge(graphdef, state).features(images)


def features(
  model: Classifier, images: Split | ImageSet, *, batch_size: int = 256
) -> Float[np.ndarray, "n width"]:
  """The frozen features of un-augmented images, in float64."""
  apply = functools.partial(_features, *nnx.split(model))
  pixels = images if isinstance(images, ImageSet) else images.images
  return evaluation.map_batches(apply, pixels, batch_size).astype(float)


def some_of_each(images: ImageSet, count: int, *, seed: int) -> ImageSet:
  """At most about `count` images, as many of every class as there are.

  Those of rare classes all stay, and common ones share what is left.
  """
  rng = np.random.default_rng(seed)
  order = rng.permutation(len(images))
  # The rank of every image within its class: low ranks of all classes go first.
  labels = images.labels[order]
  rank = np.empty(len(images), int)
  for label in np.unique(labels):
    here = np.flatnonzero(labels == label)
    rank[here] = np.arange(len(here))
  return images.take(np.sort(order[np.argsort(rank, kind="stable")[:count]]))


def is_blank(model: Classifier) -> bool:
  """Whether the head is all zeros."""
  return not np.any(model.head.kernel[...])


def fit_head(model: Classifier, data: Source) -> Classifier:
  """Fits the head on the training split of the source domain.

  The penalty acts on standardised features, where it treats all alike; mean
  and deviation are then folded into the head, which sees raw features:
  kernel = coef / std and bias = intercept − (mean / std) · coef.

  Args:
    model: Its backbone is not changed; its head may be anything.
    data: C is chosen on `data.validation`, never on OOD images.

  Returns:
    A model with the new head, which shares the backbone's arrays.
  """
  train = features(model, data.train)
  validation = features(model, data.validation)
  mean = train.mean(axis=0)
  # A feature that never varies tells nothing: 1 keeps it from dividing by 0.
  std = np.where((spread := train.std(axis=0)) > 0, spread, 1.0)
  train, validation = (train - mean) / std, (validation - mean) / std
  fits = [_regress(train, data.train.labels, c) for c in GRID]
  scores = [fit.score(validation, data.validation.labels) for fit in fits]
  best = fits[int(np.argmax(scores))]
  coefficients, intercept = best.coef_, best.intercept_
  if len(best.classes_) == 2:  # sklearn models the second class only
    coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
    intercept = np.concatenate([np.zeros_like(intercept), intercept])
  kernel = coefficients.T / std[:, None]
  bias = intercept - mean @ kernel
  kernel, bias = _for_all(
    kernel, bias, best.classes_, len(data.train.class_names)
  )
  graphdef, state = nnx.split(model)
  probed = nnx.merge(graphdef, state)
  probed.head = linear(kernel.astype(np.float32), bias.astype(np.float32))
  return probed


def _for_all(
  kernel: np.ndarray, bias: np.ndarray, seen: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """The outputs of all classes, where scikit-learn has only those it saw.

  A class without training images gets no weights and the lowest bias.
  """
  every_kernel = np.zeros((len(kernel), classes))
  every_bias = np.full(classes, bias.min())
  every_kernel[:, seen], every_bias[seen] = kernel, bias
  return every_kernel, every_bias


def _regress(inputs: np.ndarray, labels: np.ndarray, c: float) -> Any:
  # Four seconds, which a CLIP's zero-shot head need not wait.
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.linear_model import LogisticRegression

  # One thread for the linear algebra: on two busy cores the two threads of
  # OpenBLAS wait for each other (3143 x 192 features, C = 0.01: 13.7 s instead
  # of 0.34 s). It also fixes the order of the sums.
  with warnings.catch_warnings(), threadpool_limits(1):
    # The weakest penalties may stop early: they are candidates, not the result
    # of an optimisation, and the validation split scores them unchanged.
    warnings.simplefilter("ignore", ConvergenceWarning)
    return LogisticRegression(C=c, max_iter=500).fit(inputs, labels)
