"""Top-1 accuracy of a classifier on the source domain and on all others."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, UInt8

from experiments.data.split import Split


def map_batches(
  apply: Callable[[np.ndarray], Array],
  images: UInt8[np.ndarray, "n height width 3"],
  batch_size: int,
) -> np.ndarray:
  """Applies a jitted function to images, batch by batch.

  Args:
    apply: from a batch of images to an array with the same leading axis.
    images: any number of them, at least one.
    batch_size: the last batch is padded to it, so one program is compiled.

  Returns:
    ``apply(images)``, the padding removed.
  """
  total = len(images)
  batch_size = min(batch_size, total)
  outputs = []
  for start in range(0, total, batch_size):
    batch = images[start : start + batch_size]
    padding = [(0, batch_size - len(batch))] + [(0, 0)] * (images.ndim - 1)
    # Not fetched here: the device works on while the host cuts the next batch.
    outputs.append(apply(np.pad(batch, padding)))
  return np.concatenate(jax.device_get(outputs))[:total]


# Jitted once for the process, with the model's structure as a static argument,
# so that evaluating four domains, or one model after another, compiles once.
@functools.partial(jax.jit, static_argnames="graphdef")
def _predict(graphdef: Any, state: Any, images: Array) -> Array:
  return nnx.merge(graphdef, state)(images).argmax(-1)


def accuracy(model: nnx.Module, split: Split, *, batch_size: int) -> float:
  """The fraction of images whose highest logit is the label's, in [0, 1]."""
  graphdef, state = nnx.split(model)
  predictions = map_batches(
    functools.partial(_predict, graphdef, state), split.images, batch_size
  )
  return float(np.mean(predictions == split.labels))


def evaluate(
  model: nnx.Module,
  validation: Split,
  targets: Mapping[str, Split],
  *,
  batch_size: int = 256,
) -> dict[str, Any]:
  """In-distribution and out-of-distribution accuracy.

  Args:
    model: maps uint8 images to logits.
    validation: the held-out images of the source domain.
    targets: all images of every other domain.
    batch_size: images per forward pass.

  Returns:
    ``id``: accuracy on ``validation``; ``ood``: accuracy by domain;
    ``mean_ood``: the mean over domains, each counted once whatever its size;
    ``worst_ood``: the lowest of them. All in [0, 1].
  """
  ood = {
    domain: accuracy(model, split, batch_size=batch_size)
    for domain, split in targets.items()
  }
  return {
    "id": accuracy(model, validation, batch_size=batch_size),
    "ood": ood,
    "mean_ood": float(np.mean(list(ood.values()))),
    "worst_ood": min(ood.values()),
  }
