"""Evaluates a classifier on ID and OOD images.

`experiments.metrics` has the metrics; this file runs models over images, in
memory or on disk, on one device or on all devices of several processes.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from experiments import metrics
from experiments.data import on_devices
from experiments.data.images import ImageSet
from experiments.data.split import Split
from gmixout_jax import parallel

Images = UInt8[np.ndarray, "n height width 3"]

Progress = Callable[[str, int, int], None]


def map_batches(
  apply: Callable[[Any], Array],
  images: Images | ImageSet,
  batch_size: int,
  *,
  mesh: Mesh | None = None,
  progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
  """Applies a jitted function to images, batch by batch.

  Args:
    apply: From a batch of images to an array with the same leading axis.
    images: Any number of them, at least one. A set on disk is decoded as it
      goes, by threads, while the device works.
    batch_size: On each device; the last batch is padded to it, so one program
      is compiled.
    mesh: Whose devices share each batch; ``apply`` takes it cut up, and returns
      an array that is whole on all of them.
    progress: Called with the number of images that are done.

  Returns:
    ``apply(images)``, the padding removed.
  """
  total = len(images)
  size = on_devices.batch_size(total, batch_size, mesh)
  batches: Iterator[Any] = (
    _padded(images, size)
    if mesh is None
    else on_devices.chunks(images, size, mesh)
  )
  outputs = []
  for batch in batches:
    # Not fetched here: the device works on while the host cuts the next batch.
    outputs.append(apply(batch))
    if len(outputs) > 1:
      jax.block_until_ready(outputs[-2])
      progress((len(outputs) - 1) * size)
  found = np.concatenate(jax.device_get(outputs))[:total]
  progress(total)
  return found


def _padded(images: Images | ImageSet, size: int) -> Iterator[np.ndarray]:
  chunks = (
    images.chunks(size)
    if isinstance(images, ImageSet)
    else (images[i : i + size] for i in range(0, len(images), size))
  )
  for batch in chunks:
    padding = [(0, size - len(batch))] + [(0, 0)] * (batch.ndim - 1)
    yield np.pad(batch, padding)


# Jitted once for the process, with the model's structure as a static argument,
# so that evaluating four domains, or one model after another, compiles once.
@functools.partial(jax.jit, static_argnames="graphdef")
def _logits(graphdef: Any, state: Any, images: Array) -> Array:
  return nnx.merge(graphdef, state)(images)


@functools.partial(jax.jit, static_argnames=("graphdef", "mesh"))
def _shared_logits(
  graphdef: Any, mesh: Mesh, state: Any, images: Array
) -> Array:
  return parallel.over_examples(
    lambda state, images: nnx.merge(graphdef, state)(images), mesh
  )(state, images)


def logits(
  model: nnx.Module,
  images: Split | ImageSet,
  *,
  batch_size: int = 256,
  mesh: Mesh | None = None,
  progress: Callable[[int], None] = lambda done: None,
) -> Float[np.ndarray, "n classes"]:
  """The logits of a set's own classes.

  Args:
    model: Maps uint8 images to the logits of all its outputs.
    images: A split, or a set on disk whose ``outputs`` say which of the head's
      outputs its classes are.
    batch_size: Images per forward pass and device.
    mesh: From `parallel.data_mesh`: whose devices share the images. All its
      processes call this, with the same images, and get all logits.
    progress: Called with the number of images that are done.

  Raises:
    ValueError: If the head does not match the set's classes.
    FloatingPointError: If a logit is not finite; the image is named.
  """
  graphdef, state = nnx.split(model)
  pixels = images if isinstance(images, ImageSet) else images.images
  apply = functools.partial(_logits, graphdef, state)
  if mesh is not None:
    everywhere = parallel.replicate(state, mesh)
    apply = functools.partial(_shared_logits, graphdef, mesh, everywhere)
  every = map_batches(apply, pixels, batch_size, mesh=mesh, progress=progress)
  if not (finite := np.isfinite(every).all(axis=-1)).all():
    first = int(np.argmin(finite))
    name = images.name(first) if isinstance(images, ImageSet) else str(first)
    raise FloatingPointError(
      f"logits must be finite, and those of {int((~finite).sum())} of"
      f" {len(finite)} images are not; the first is image {name}."
    )
  try:
    return metrics.select(
      every, _outputs(images), classes=len(images.class_names)
    )
  except ValueError as error:
    first = f" of {images.name(0)}" if isinstance(images, ImageSet) else ""
    raise ValueError(
      f"the set{first} with classes such as {images.class_names[0]!r} does not"
      f" fit the model: {error}"
    ) from error


def accuracy(
  model: nnx.Module,
  split: Split | ImageSet,
  *,
  batch_size: int,
  mesh: Mesh | None = None,
  progress: Callable[[int], None] = lambda done: None,
) -> float:
  """The fraction of images whose highest logit is the label's, in [0, 1].

  The arguments are those of `logits`.
  """
  found = logits(
    model, split, batch_size=batch_size, mesh=mesh, progress=progress
  )
  return metrics.top1(found.argmax(-1), split.labels)


def measure(
  logits: Float[np.ndarray, "n classes"],
  labels: np.ndarray,
  *,
  train_counts: np.ndarray | None = None,
) -> dict[str, Any]:
  """Everything that one set's logits and labels tell; JSON.

  Args:
    logits: Of the set's own classes.
    labels: Of the same images.
    train_counts: How many training images every class has, for a long tail.

  Returns:
    ``top1``, ``mean_per_class``, ``macro_f1`` and ``ece`` in [0, 1], ``brier``
    in [0, 2], ``nll`` in nats, and ``reliability``: count, accuracy and
    confidence of 15 bins. With ``train_counts`` also ``groups``: accuracy on
    many-, medium- and few-shot classes.
  """
  predictions, classes = logits.argmax(-1), logits.shape[1]
  probabilities = metrics.softmax(logits)
  bins = metrics.reliability(probabilities, labels)
  groups = {}
  if train_counts is not None:
    found = metrics.by_group(predictions, labels, train_counts)
    groups = {"groups": found}
  return {
    "top1": metrics.top1(predictions, labels),
    "mean_per_class": metrics.mean_per_class(
      predictions, labels, classes=classes
    ),
    "macro_f1": metrics.macro_f1(predictions, labels),
    "ece": bins.ece,
    "brier": metrics.brier(probabilities, labels),
    "nll": metrics.nll(logits, labels),
    "reliability": {
      "count": bins.count.tolist(),
      "accuracy": bins.accuracy.round(5).tolist(),
      "confidence": bins.confidence.round(5).tolist(),
    },
    **groups,
  }


def evaluate(
  model: nnx.Module,
  validation: Split | ImageSet | None,
  targets: Mapping[str, Split | ImageSet],
  *,
  batch_size: int = 256,
  train_counts: np.ndarray | None = None,
  by_domain: bool = False,
  mesh: Mesh | None = None,
  progress: Progress = lambda name, done, total: None,
) -> dict[str, Any]:
  """In-distribution and out-of-distribution accuracy, and calibration.

  Args:
    model: Maps uint8 images to logits.
    validation: The held-out images of the source domain, if there are any.
    targets: All images of every other domain; there may be none.
    batch_size: Images per forward pass and device.
    train_counts: How many training images every class has; see `measure`.
      Targets with classes of their own (``outputs``) have no such groups.
    by_domain: Whether to report ID accuracy by domain of ``validation``, which
      is then an `ImageSet`.
    mesh: See `logits`.
    progress: Called with "id" or "ood/NAME", the number of its images that are
      done, and that of all of them.

  Returns:
    ``id``: accuracy on ``validation``, if given; ``ood``: accuracy by domain;
    ``mean_ood``: the mean over domains, each counted once whatever its size;
    ``worst_ood``: the lowest of them, all in [0, 1], if there is a target.
    ``details``: what `measure` gives for ``"id"`` and every domain. With
    ``by_domain`` also ``id_by_domain`` and its mean ``mean_id``, by which
    DomainBed chooses.

  Raises:
    ValueError: If a target's classes are not those of ``validation``, nor
      mapped to the head's outputs.
  """
  sets = {f"ood/{name}": target for name, target in targets.items()}
  if validation is not None:
    for name, target in targets.items():
      _same_classes(name, target, validation.class_names)
    sets = {"id": validation} | sets
  details, id_by_domain = {}, {}
  for name, images in sets.items():
    found = logits(
      model,
      images,
      batch_size=batch_size,
      mesh=mesh,
      progress=functools.partial(_reported, progress, name, len(images)),
    )
    details[name] = measure(
      found,
      images.labels,
      train_counts=None if _outputs(images) else train_counts,
    )
    if by_domain and name == "id" and isinstance(images, ImageSet):
      id_by_domain = _by_domain(found.argmax(-1), images)
  ood = {name: details[f"ood/{name}"]["top1"] for name in targets}
  return {
    **({} if validation is None else {"id": details["id"]["top1"]}),
    "ood": ood,
    **(metrics.out_of_distribution(ood) if ood else {}),
    **id_by_domain,
    "details": details,
  }


def _reported(progress: Progress, name: str, total: int, done: int) -> None:
  progress(name, done, total)


def _by_domain(predictions: np.ndarray, images: ImageSet) -> dict[str, Any]:
  """Accuracy on each domain that has images, and the mean."""
  accuracies = {
    images.domain_names[d]: metrics.top1(
      predictions[here := images.domains == d], images.labels[here]
    )
    for d in np.unique(images.domains)
  }
  mean = float(np.mean(list(accuracies.values())))
  return {"id_by_domain": accuracies, "mean_id": mean}


def _outputs(images: Split | ImageSet) -> tuple[tuple[int, ...], ...] | None:
  """Which of the head's outputs the classes are; None if they are the same."""
  return images.outputs if isinstance(images, ImageSet) else None


def _same_classes(
  name: str, target: Split | ImageSet, expected: tuple[str, ...]
) -> None:
  """As many classes in another order would be scored without a complaint."""
  found = target.class_names
  if _outputs(target) is not None or found == expected:
    return
  if len(found) != len(expected):
    raise ValueError(
      f"target {name!r} has {len(found)} classes, the source {len(expected)}:"
      " expected the same, or a list of which outputs of the head they are."
    )
  c = next(c for c, pair in enumerate(zip(found, expected, strict=True))
           if pair[0] != pair[1])  # fmt: skip
  raise ValueError(
    f"target {name!r} calls class {c} {found[c]!r}, the source {expected[c]!r}:"
    " expected the same names in the same order."
  )
