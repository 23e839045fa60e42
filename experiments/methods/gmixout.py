"""GMixout: random sub-networks around an anchor that follows them."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import optax

import gmixout_jax as gx
from experiments.methods import advice
from experiments.methods.mixed import Mixed


@dataclasses.dataclass(frozen=True, kw_only=True)
class GMixout(Mixed):
  """Trains a random tenth of every matrix, and another one every few steps.

  See `gmixout_jax.gmixout` for the method, and arXiv 2510.06982 for the paper.

  Attributes:
    learning_rate: The peak, for the mixed matrices: about 25 times that of full
      fine-tuning; with `rescale` five times, and less with a larger k
      (`gmixout_jax.gmixout_learning_rate`).
    head_learning_rate: The peak, for the head.
    anchor_decay: λ, the share of the old anchor that an episode keeps, in
      [0, 1].
    resample_every: k, optimizer steps per episode. A run needs many episodes:
      in T steps the anchor covers at most 1 − λ^(T/k) of the way, with
      `rescale` 1 − (1 − (1−λ)(1−p))^(T/k) (`gmixout_jax.gmixout_progress`):
      there 0.52 in 100 steps at k 10, and 0.999 at k 1. Every result line holds
      the bound; below 0.8 `train` suggests another k or no `rescale`.
    moments: Whether Adam's moments carry over to the next episode ("carry") or
      restart ("reset"). With "reset" the run is dense, as
      `gmixout_jax.MixedParams` only carries them.
    rescale: Whether the forward pass divides the residual by 1 − p, as in the
      paper. The study (docs/results) found no significant difference at equal
      ID score, and that with it k 10 stops short in runs of 150 steps.
  """

  title: ClassVar[str] = "GMixout"
  learning_rate: float = 2.5e-3
  head_learning_rate: float = 1e-4
  anchor_decay: float = 0.3
  resample_every: int = 10
  moments: Literal["carry", "reset"] = "carry"
  rescale: bool = False

  @classmethod
  def as_published(
    cls, *, learning_rate: float, head_learning_rate: float
  ) -> "GMixout":
    """With the settings of the paper, as far as they are known.

    Example:
      >>> rates = {"learning_rate": 1e-4, "head_learning_rate": 3e-5}
      >>> GMixout.as_published(**rates).rescale
      True
    """
    return cls(
      learning_rate=learning_rate,
      head_learning_rate=head_learning_rate,
      resample_every=10,
      rescale=True,
    )

  @property
  def packs(self) -> bool:
    """Not where moments are reset."""
    return super().packs and self.moments == "carry"

  def check_learning_rate(self, full_finetuning_lr: float) -> None:
    """Warns if the rate is far from the rule of thumb."""
    advice.check_learning_rate(
      self.learning_rate,
      full_finetuning_lr=full_finetuning_lr,
      resample_every=self.resample_every,
      rescale=self.rescale,
    )

  def advice_on_length(self, steps: int) -> str | None:
    """A sentence about a low progress bound."""
    return advice.on_progress(steps, **self._of_progress())

  def progress_bound(self, steps: int) -> float:
    """See `gmixout_jax.gmixout_progress`."""
    return gx.gmixout_progress(steps, **self._of_progress())

  def settings(self) -> dict[str, Any]:
    """λ, k and whether to rescale, beside what all have."""
    return {"sampler": self.sampler, **self._of_progress()}

  def _of_progress(self) -> dict[str, Any]:
    return {
      "sparsity": self.sparsity,
      "anchor_decay": self.anchor_decay,
      "resample_every": self.resample_every,
      "rescale": self.rescale,
    }

  def mix(
    self, inner: optax.GradientTransformation, key: jax.Array | int
  ) -> optax.GradientTransformation:
    """Passes `moments` on, too."""
    return gx.gmixout(inner, key=key, moments=self.moments, **self.settings())
