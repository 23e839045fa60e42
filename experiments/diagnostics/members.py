"""Runs whose snapshots are the members of an ensemble.

Members are sub-networks: training weights W = A + M ⊙ Δ / (1 − p) one step
before the end of an episode. After its end GMixout has merged its residual, and
W = A. What is evaluated is compared with their plain average and with the
average of their predictions.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import metrics
from experiments.data.batches import Batch
from experiments.data.images import ImageSet
from experiments.data.split import Split
from experiments.diagnostics import bvcl, diversity
from experiments.methods.method import Method
from experiments.methods.schedule import Schedule
from experiments.models import evaluation, probe
from experiments.models.classifier import Classifier
from experiments.tasks.recipe import Recipe
from experiments.training import loop

Weights = Any  # nested dicts of NumPy arrays


class Trajectory(NamedTuple):
  """What a run left behind; all weights are on the host.

  Attributes:
    initial: The weights that it started from.
    members: The sub-networks of the last episodes, earliest first.
    deployed: What the method deploys.
  """

  initial: Weights
  members: tuple[Weights, ...]
  deployed: Weights


def collect(
  method: Method,
  model: Classifier,
  batches: Callable[[int], Iterable[Batch]],
  *,
  steps: int,
  every: int,
  members: int,
  key: jax.Array,
  schedule: Schedule | None = None,
  recipe: Recipe = Recipe(),  # noqa: B008 (it is frozen)
  skip_nonfinite: int = 0,
) -> Trajectory:
  """Trains a prepared model by `loop.fit`, and keeps sub-networks on the way.

  Where the learning rate falls to 0, the last episodes hardly move and their
  members are one model: what is said of an ensemble wants a rate that is held.

  Args:
    method: One that trains.
    model: From `method.prepare`.
    batches: As for `loop.fit`.
    steps: Optimizer steps, a multiple of `every`.
    every: Steps between members, a number of whole episodes.
    members: How many to keep, the last ones; none if 0.
    key: Of all randomness.
    schedule: Of the learning rate; `Schedule(steps)` if None.
    recipe: As for `loop.fit`.
    skip_nonfinite: As for `loop.fit`.

  Raises:
    ValueError: If there are fewer episodes than members, if `steps` is no
      multiple of `every`, or the method does not train; or as `loop.fit`.
  """
  if steps % every or not 0 <= members <= steps // every:
    raise ValueError(
      f"steps must be a multiple of every, of at least as many episodes as"
      f" members; got {steps} steps, every {every}, {members} members."
    )
  fitted = loop.fit(
    method,
    model,
    batches,
    steps=steps,
    schedule=schedule or Schedule(steps),
    key=key,
    snapshots=[steps - i * every - 1 for i in reversed(range(members))],
    live=True,
    recipe=recipe,
    skip_nonfinite=skip_nonfinite,
  )
  if not len(fitted.losses):
    raise ValueError(f"{type(method).__name__} does not train: no members.")
  return Trajectory(
    _on_host(method.export(model)),
    tuple(snapshot.params for snapshot in fitted.snapshots),
    _on_host(fitted.model),
  )


def _on_host(model: Classifier) -> Weights:
  return jax.tree.map(np.asarray, jax.device_get(loop.weights_of(model)))


class Scorer:
  """Evaluates weights of one structure."""

  def __init__(self, model: Classifier):
    """Takes the model's structure; its weights do not matter."""
    self._graphdef, _, self._rest = nnx.split(model, nnx.Param, ...)

  def model(self, weights: Weights) -> Classifier:
    """The model of some weights."""
    return nnx.merge(self._graphdef, weights, self._rest)

  def outputs(
    self, weights: Weights, images: Split | ImageSet
  ) -> tuple[np.ndarray, np.ndarray]:
    """Penultimate features [n, width] and probabilities [n, classes]."""
    model = self.model(weights)
    # Images pass through the backbone once for both.
    features = probe.features(model, images)
    every = np.asarray(model.head(jnp.asarray(features, jnp.float32)))
    outputs = images.outputs if isinstance(images, ImageSet) else None
    logits = metrics.select(every, outputs, classes=len(images.class_names))
    return features, metrics.softmax(logits)

  def probabilities(
    self, weights: Weights, images: Split | ImageSet
  ) -> np.ndarray:
    """Class probabilities, [n, classes]."""
    return metrics.softmax(evaluation.logits(self.model(weights), images))

  def accuracy(self, weights: Weights, images: Split | ImageSet) -> float:
    """Top-1 accuracy, in [0, 1]."""
    predictions = self.probabilities(weights, images).argmax(-1)
    return metrics.top1(predictions, images.labels)


def diagnose(
  runs: Sequence[Trajectory],
  scorer: Scorer,
  sets: Mapping[str, Split | ImageSet],
) -> dict[str, Any]:
  """BVCL and diversity of the implicit ensemble, run by run; JSON.

  Every list has a value per run, and its mean is the estimate: of `bvcl.by_run`
  for the terms, else what was measured of the run.

  Args:
    runs: Of one method with different seeds, at least three, of at least two
      members each.
    scorer: Of the model's structure.
    sets: What to measure on, by name.

  Returns:
    ``weights``: ``locality`` and ``relative_locality`` (see `bvcl.Locality`),
    ``angle``, the mean over pairs of members between their residuals, in
    degrees; and ``angle_of_runs``, a single number, between what different runs
    deploy. ``sets``: by name, the terms of `bvcl.by_run`; Brier scores of the
    members' average (``average``) and of what is deployed (``deployed``);
    ``residual`` = average − ensemble; and over pairs of members
    ``disagreement``, ``ratio_error`` (None where undefined) and ``cka_1m``,
    1 − unbiased CKA.

  Raises:
    ValueError: With fewer runs or members.
  """
  initial = runs[0].initial
  averages = [bvcl.mean_weights(run.members) for run in runs]

  def angle(a: Weights, b: Weights) -> float:
    return diversity.angle(a, b, initial)

  near = [
    bvcl.locality([run.members], initial, [average])
    for run, average in zip(runs, averages, strict=True)
  ]
  return {
    "weights": {
      "locality": [each.squared for each in near],
      "relative_locality": [each.relative for each in near],
      "angle": [diversity.over_pairs(angle, run.members) for run in runs],
    },
    "angle_of_runs": diversity.over_pairs(angle, [r.deployed for r in runs]),
    "sets": {
      name: _measure(runs, averages, scorer, images)
      for name, images in sets.items()
    },
  }


def _measure(
  runs: Sequence[Trajectory],
  averages: Sequence[Weights],
  scorer: Scorer,
  images: Split | ImageSet,
) -> Mapping[str, Sequence[float | None]]:
  """What `diagnose` says of one set."""
  labels = images.labels
  features, probabilities = [], []
  for run in runs:
    outputs = [scorer.outputs(member, images) for member in run.members]
    features.append([f for f, _ in outputs])
    probabilities.append([p for _, p in outputs])
  terms = bvcl.by_run(np.array(probabilities), labels)

  def brier(weights: Weights) -> float:
    return metrics.brier(scorer.probabilities(weights, images), labels)

  def over_pairs(measure: Any, of: Sequence[Any]) -> list[float | None]:
    pairs = [list(itertools.combinations(each, 2)) for each in of]
    return [_mean([measure(a, b) for a, b in each]) for each in pairs]

  calls = [[p.argmax(-1) for p in run] for run in probabilities]
  average = [brier(weights) for weights in averages]
  return {
    **terms,
    "average": average,
    "deployed": [brier(run.deployed) for run in runs],
    "residual": [
      a - e for a, e in zip(average, terms["ensemble"], strict=True)
    ],
    "disagreement": over_pairs(diversity.disagreement, calls),
    "ratio_error": over_pairs(
      lambda a, b: diversity.ratio_error(a, b, labels), calls
    ),
    "cka_1m": over_pairs(
      lambda a, b: 1 - diversity.unbiased_cka(a, b), features
    ),
  }


def _mean(values: list[float]) -> float | None:
  """The mean of what is defined; None, which JSON has, if nothing is."""
  defined = [value for value in values if np.isfinite(value)]
  return float(np.mean(defined)) if defined else None
