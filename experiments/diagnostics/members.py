"""Runs whose snapshots are the members of an ensemble.

GMixout and Mixout train a new random sub-network in every episode: the live
weights at the end of an episode are a sub-network that was trained, and the
anchor is said to be the average of these. So the members are live weights, and
what is deployed is compared with their plain average and with the average of
their predictions.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import gmixout_jax as gx
from experiments import evaluate, form, loop, metrics
from experiments.classifier import Classifier
from experiments.data.images import ImageSet
from experiments.data.split import Batch, Split
from experiments.diagnostics import bvcl, diversity
from experiments.methods.method import Method

Weights = Any  # nested dicts of NumPy arrays


class Trajectory(NamedTuple):
  """What a run left behind; all weights are on the host.

  Attributes:
    initial: The weights that it started from.
    members: The live weights after the last episodes, earliest first.
    deployed: What the method deploys.
  """

  initial: Weights
  members: tuple[Weights, ...]
  deployed: Weights


def collect(
  method: Method,
  model: Classifier,
  batches: Iterable[Batch],
  *,
  steps: int,
  every: int,
  members: int,
  key: jax.Array,
) -> Trajectory:
  """Trains a prepared model and keeps snapshots of its live weights.

  The run is that of `loop.fit` with the same arguments.

  Args:
    method: One that trains.
    model: From `method.prepare`.
    batches: At least `steps` of them.
    steps: Optimizer steps, a multiple of `every`.
    every: Steps between snapshots; the length of an episode.
    members: How many snapshots to keep, the last ones.
    key: Of all randomness.

  Raises:
    ValueError: If there are fewer episodes than members, if `steps` is no
      multiple of `every`, or the method does not train.
  """
  if steps % every or not 0 < members <= steps // every:
    raise ValueError(
      f"steps must be a multiple of every, of at least as many episodes as"
      f" members; got {steps} steps, every {every}, {members} members."
    )
  transform_key, loss_key = jax.random.split(key)
  graphdef, state, rest = nnx.split(model, nnx.Param, ...)
  initial = _to_host(nnx.to_pure_dict(state))
  params = jax.tree.map(jnp.copy, nnx.to_pure_dict(state))
  schedule = loop.warmup_cosine(steps)
  transform = method.transform(params, schedule, transform_key)
  if transform is None:
    raise ValueError(f"{type(method).__name__} does not train: no members.")
  optimizer = optax.with_extra_args_support(transform)
  params = method.parametrize(params, transform_key)
  opt_state = optimizer.init(form.trainable(params))
  train_step = loop.make_step(method, optimizer, graphdef)
  first = steps - (members - 1) * every
  kept = []
  for step, batch in zip(range(steps), batches, strict=False):
    (params, opt_state), _ = train_step(
      (params, opt_state), batch, rest, np.int32(step), loss_key
    )
    if step + 1 >= first and (step + 1) % every == 0:
      live = params.params if isinstance(params, gx.MixedParams) else params
      kept.append(_to_host(live))
  return Trajectory(
    initial, tuple(kept), _to_host(method.deploy(opt_state, params))
  )


def _to_host(weights: Any) -> Weights:
  # Copies, for the next step takes the device's buffers over.
  return jax.tree.map(np.array, jax.device_get(weights))


class Scorer:
  """Evaluates weights of one structure."""

  def __init__(self, model: Classifier):
    """Takes the model's structure; its weights do not matter."""
    self._graphdef, _, self._rest = nnx.split(model, nnx.Param, ...)

  def model(self, weights: Weights) -> Classifier:
    """The model of some weights."""
    return nnx.merge(self._graphdef, weights, self._rest)

  def probabilities(
    self, weights: Weights, images: Split | ImageSet
  ) -> np.ndarray:
    """Class probabilities, [n, classes]."""
    return metrics.softmax(evaluate.logits(self.model(weights), images))

  def accuracy(self, weights: Weights, images: Split | ImageSet) -> float:
    """Top-1 accuracy, in [0, 1]."""
    predictions = self.probabilities(weights, images).argmax(-1)
    return metrics.top1(predictions, images.labels)


def diagnose(
  runs: list[Trajectory],
  scorer: Scorer,
  sets: dict[str, Split | ImageSet],
  features: Callable[[Classifier, Split], np.ndarray] | None = None,
) -> dict[str, Any]:
  """BVCL and diversity of the implicit ensemble; JSON.

  Args:
    runs: Of one method with different seeds, at least two.
    scorer: Of the model's structure.
    sets: What to measure on, by name.
    features: From a model and images to its penultimate features, for CKA; it
      is left out if None.

  Returns:
    ``locality``; ``angle`` between residuals of members of a run, and between
    what different runs deploy, in degrees; and per set the terms of
    `bvcl.Terms`, Brier scores of the members' average (``average``), of what
    is deployed (``deployed``), ``residual`` = average − ensemble, and
    ``disagreement``, ``ratio_error`` (None where undefined) and ``cka_1m``
    (1 − unbiased CKA) over pairs of members of a run.
  """
  averages = [bvcl.mean_weights(run.members) for run in runs]
  initial = runs[0].initial
  near = bvcl.locality([run.members for run in runs], initial, averages)
  found: dict[str, Any] = {
    "locality": dataclasses.asdict(near),
    "angle": {
      "members": _mean_over_pairs(
        lambda a, b: diversity.angle(a, b, initial), runs
      ),
      "runs": diversity.over_pairs(
        lambda a, b: diversity.angle(a, b, initial),
        [run.deployed for run in runs],
      ),
    },
    "sets": {},
  }
  for name, images in sets.items():
    p = np.stack(
      [
        [scorer.probabilities(member, images) for member in run.members]
        for run in runs
      ]
    )
    terms = bvcl.decompose(p, images.labels)

    def brier(weights: Weights, images: Split | ImageSet = images) -> float:
      return metrics.brier(scorer.probabilities(weights, images), images.labels)

    average = float(np.mean([brier(weights) for weights in averages]))
    measured: dict[str, Any] = {
      **dataclasses.asdict(terms),
      "average": average,
      "deployed": float(np.mean([brier(run.deployed) for run in runs])),
      "residual": average - terms.ensemble,
    }
    if p.shape[1] > 1:
      calls = list(p.argmax(-1))
      labels = images.labels
      measured["disagreement"] = _mean(
        [diversity.over_pairs(diversity.disagreement, list(c)) for c in calls]
      )
      measured["ratio_error"] = _mean(
        [
          diversity.ratio_error(a, b, labels)
          for c in calls
          for i, a in enumerate(c)
          for b in c[i + 1 :]
        ]
      )
      if features is not None and isinstance(images, Split):
        of_run = [
          [features(scorer.model(member), images) for member in run.members]
          for run in runs
        ]
        measured["cka_1m"] = 1 - float(
          np.mean(
            [
              diversity.over_pairs(diversity.unbiased_cka, each)
              for each in of_run
            ]
          )
        )
    found["sets"][name] = measured
  return found


def _mean(values: list[float]) -> float | None:
  """The mean of what is defined; None, which JSON has, if nothing is."""
  defined = [value for value in values if np.isfinite(value)]
  return float(np.mean(defined)) if defined else None


def _mean_over_pairs(
  measure: Callable[[Weights, Weights], float], runs: list[Trajectory]
) -> float | None:
  if len(runs[0].members) < 2:
    return None
  return float(
    np.mean([diversity.over_pairs(measure, run.members) for run in runs])
  )
