"""Bias, variance, covariance and locality of an ensemble of weights.

DiWA (Rame et al., 2022, https://arxiv.org/abs/2205.09739) argues that the
squared error of an average of M members' weights is

  E[error(θ_WA)] = bias² + var / M + (M − 1) / M · cov + O(Δ̄²)

but never measures the terms. Here they are measured, from R independent runs
(seeds) that give M members each, for class probabilities p and the Brier score
‖one-hot(y) − p‖², as means over images:

  bias²     ‖y − f̄‖² with f̄ the expected prediction
  var       E‖f − f̄‖² of one member
  cov       E⟨f − f̄, f' − f̄⟩ of two members of one run
  locality  Δ̄² = E max_m ‖θ_m − θ_WA‖²
  residual  Brier(weight average) − Brier(mean of predictions), what the O(Δ̄²)
            comes to

f̄ is estimated by the mean over all R·M members, so that each estimate is off
by a share of v = variance of a run's mean prediction; v / R is taken from
bias² and added to var and cov. All three are then unbiased over runs, and their
sum is *exactly* the runs' mean Brier score of the ensemble, for any data.

Members of one run are taken to be alike. Snapshots along a run are not quite:
``drift`` is the part of var by which the members' own means differ.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Terms:
  """The decomposition of an ensemble's Brier score, means over images.

  Attributes:
    bias2: Can be below 0 by chance, as an unbiased estimate of a square.
    variance: Of one member.
    covariance: Of two members of one run; NaN for one member.
    drift: mean_m ‖f̄_m − f̄‖², as measured.
    ensemble: The mean over runs of the Brier score of the mean prediction:
      bias2 + variance / members + (members − 1) / members · covariance.
    member: The mean Brier score of a single member.
    runs: R.
    members: M.
  """

  bias2: float
  variance: float
  covariance: float
  drift: float
  ensemble: float
  member: float
  runs: int
  members: int


def decompose(
  probabilities: Float[np.ndarray, "runs members n classes"],
  labels: Int[np.ndarray, " n"],
) -> Terms:
  """Measures bias², variance and covariance.

  Args:
    probabilities: Of every member of every run, on the same images.
    labels: Of the images.

  Raises:
    ValueError: With fewer than two runs: members of one run share its seed, and
      what they share cannot be told from bias. Also on other shapes.
  """
  f = np.asarray(probabilities, np.float64)
  labels = np.asarray(labels)
  if f.ndim != 4 or labels.shape != f.shape[2:3] or not f.size:
    raise ValueError(
      "probabilities must be [runs, members, n, classes] and labels [n], got"
      f" shapes {f.shape} and {labels.shape}."
    )
  runs, members = f.shape[:2]
  if runs < 2:
    raise ValueError(
      "bias, variance and covariance need at least two independent runs, got"
      " 1: the members of one run share all its randomness, so their"
      " covariance cannot be told from bias."
    )
  y = np.eye(f.shape[3])[labels]
  grand = f.mean(axis=(0, 1))
  of_run = f.mean(axis=1)

  def mean_square(x: np.ndarray) -> float:
    return float(np.mean(np.sum(x**2, axis=-1)))

  v = mean_square(of_run - grand) * runs / (runs - 1)
  variance = mean_square(f - grand)
  # ‖Σ_m d_m‖² = Σ_m ‖d_m‖² + Σ_m≠m' ⟨d_m, d_m'⟩ with d = f − f̄.
  both = mean_square(of_run - grand) * members**2
  covariance = (
    (both - members * variance) / (members * (members - 1))
    if members > 1
    else float("nan")
  )
  return Terms(
    bias2=mean_square(y - grand) - v / runs,
    variance=variance + v / runs,
    covariance=covariance + v / runs,
    drift=mean_square(f.mean(axis=0) - grand),
    ensemble=mean_square(y - of_run),
    member=mean_square(y - f),
    runs=runs,
    members=members,
  )


def by_run(
  probabilities: Float[np.ndarray, "runs members n classes"],
  labels: Int[np.ndarray, " n"],
) -> dict[str, list[float]]:
  """What each run contributes to every term, for intervals over runs.

  The jackknife's pseudo-values R · t − (R − 1) · t₋ᵣ, where t₋ᵣ is the term
  without run r. Their mean is the term as `decompose` has it (all but
  ``drift``, which is biased and is left out, are means over runs or pairs of
  them), and they spread as independent values of it would:
  `experiments.metrics.interval` takes them.

  Args:
    probabilities: As of `decompose`, of at least three runs.
    labels: Likewise.

  Raises:
    ValueError: With fewer than three runs, for two of them must remain.
  """
  f = np.asarray(probabilities)
  runs = len(f)
  if runs < 3:
    raise ValueError(f"intervals need at least three runs, got {runs}.")
  whole = decompose(f, labels)
  left = [decompose(np.delete(f, r, axis=0), labels) for r in range(runs)]
  return {
    term: [
      runs * getattr(whole, term) - (runs - 1) * getattr(without, term)
      for without in left
    ]
    for term in ("bias2", "variance", "covariance", "ensemble", "member")
  }


@dataclasses.dataclass(frozen=True)
class Locality:
  """How far members lie from their average, means over runs.

  Attributes:
    squared: Δ̄² = E max_m ‖θ_m − θ_WA‖².
    relative: The same over ‖θ_0‖², the norm of the weights before training.
  """

  squared: float
  relative: float


def locality(
  runs: Sequence[Sequence[Any]],
  initial: Any,
  averages: Sequence[Any] | None = None,
) -> Locality:
  """Measures Δ̄² from pytrees of weights.

  Args:
    runs: The members' weights, by run.
    initial: The weights before training.
    averages: The weights that each run deploys; the members' mean if None.

  Raises:
    ValueError: If there is no run or a run has no member.
  """
  if not runs or not all(len(members) for members in runs):
    raise ValueError("locality needs at least one run, and a member in each.")
  centres = averages or [mean_weights(members) for members in runs]
  worst = [
    max(squared_distance(member, centre) for member in members)
    for members, centre in zip(runs, centres, strict=True)
  ]
  squared = float(np.mean(worst))
  zero = jax.tree.map(np.zeros_like, initial)
  return Locality(squared, squared / squared_distance(initial, zero))


def mean_weights(members: Sequence[Any]) -> Any:
  """The plain average of pytrees, in float64 on the way."""
  return jax.tree.map(
    lambda *leaves: np.mean(
      [np.asarray(leaf, np.float64) for leaf in leaves], axis=0
    ).astype(leaves[0].dtype),
    *members,
  )


def squared_distance(a: Any, b: Any) -> float:
  """‖a − b‖² over all leaves of two pytrees."""
  squares = jax.tree.map(
    lambda x, y: np.sum((np.asarray(x, np.float64) - np.asarray(y)) ** 2), a, b
  )
  return float(sum(jax.tree.leaves(squares)))
