"""Calibration: whether confidence matches accuracy."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy import special

Probabilities = Float[np.ndarray, "n classes"]
Labels = Int[np.ndarray, " n"]


def softmax(logits: Float[np.ndarray, "n classes"]) -> Probabilities:
  """Probabilities of logits, in float64."""
  return special.softmax(np.asarray(logits, np.float64), axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
  """The data of a reliability diagram, and the ECE.

  Attributes:
    count: Images per bin of confidence.
    accuracy: Of them, in [0, 1]; 0 in an empty bin.
    confidence: Their mean; 0 in an empty bin.
  """

  count: Int[np.ndarray, " bins"]
  accuracy: Float[np.ndarray, " bins"]
  confidence: Float[np.ndarray, " bins"]

  @property
  def ece(self) -> float:
    """Σ share · |accuracy − confidence|, in [0, 1]."""
    share = self.count / self.count.sum()
    return float(np.sum(share * np.abs(self.accuracy - self.confidence)))


def reliability(
  probabilities: Probabilities, labels: Labels, *, bins: int = 15
) -> Reliability:
  """Bins images by their highest probability.

  Args:
    probabilities: Rows sum to 1.
    labels: Of the same length.
    bins: Of equal width; bin b is (b / bins, (b + 1) / bins], and 0 is in the
      first.

  Raises:
    ValueError: On other shapes, values outside [0, 1] or rows of another sum.

  References:
    Guo et al., 2017, https://arxiv.org/abs/1706.04599.
  """
  probabilities, labels = _check(probabilities, labels)
  if bins < 1:
    raise ValueError(f"bins must be at least 1, got {bins}.")
  confidence = probabilities.max(axis=1)
  right = probabilities.argmax(axis=1) == labels
  inner = np.linspace(0, 1, bins + 1)[1:-1]
  index = np.searchsorted(inner, confidence, side="left")
  count = np.bincount(index, minlength=bins)
  divisor = np.maximum(count, 1)
  return Reliability(
    count,
    np.bincount(index, right, minlength=bins) / divisor,
    np.bincount(index, confidence, minlength=bins) / divisor,
  )


def brier(probabilities: Probabilities, labels: Labels) -> float:
  """The mean over images of ‖p − one-hot(y)‖², in [0, 2].

  Summed over all classes, as Brier had it and as the decomposition in
  `experiments.diagnostics.bvcl` needs it; some report half of this for two
  classes.
  """
  probabilities, labels = _check(probabilities, labels)
  own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
  squares = np.sum(probabilities**2, axis=1)
  return float(np.mean(squares - 2 * own + 1))


def nll(logits: Float[np.ndarray, "n classes"], labels: Labels) -> float:
  """The mean over images of −log p(y), at least 0, in nats.

  Of logits, as a probability of zero has no logarithm.

  Example:
    >>> round(nll(np.array([[0.0, 0.0], [0.0, 800.0]]), np.array([1, 0])), 4)
    400.3466
  """
  logits = np.asarray(logits, np.float64)
  _check(softmax(logits), labels)
  own = np.take_along_axis(logits, np.asarray(labels)[:, None], axis=1)[:, 0]
  return float(np.mean(special.logsumexp(logits, axis=1) - own))


def _check(
  probabilities: Probabilities, labels: Labels
) -> tuple[Probabilities, Labels]:
  probabilities = np.asarray(probabilities, np.float64)
  labels = np.asarray(labels)
  if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
    raise ValueError(
      "probabilities must be [n, classes] and labels [n], got shapes"
      f" {probabilities.shape} and {labels.shape}."
    )
  if not labels.size:
    raise ValueError("there are no labels.")
  if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
    raise ValueError(
      f"labels must be 0 to {probabilities.shape[1] - 1}, got {labels.min()}"
      f" to {labels.max()}."
    )
  sums = probabilities.sum(axis=1)
  low, high = probabilities.min(), probabilities.max()
  off = np.abs(sums - 1).max()
  if not (low >= -1e-6 and high <= 1 + 1e-6 and off < 1e-3):  # also on NaN
    raise ValueError(
      "probabilities must be in [0, 1] and sum to 1 in every row, got values"
      f" from {low:.3g} to {high:.3g} and sums off by up to {off:.3g}:"
      " were these logits?"
    )
  return probabilities, labels
