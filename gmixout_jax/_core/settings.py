"""The static description of a mix: everything about it but arrays."""

import dataclasses
import numbers
from typing import Any, Literal

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from gmixout_jax import labels
from gmixout_jax._core import kernel_layout, mixed_leaf, resampling, samplers
from pallas_kernels import threefry
from pallas_kernels.dispatch import Implementation

Residual = Literal["reset", "keep"]


@dataclasses.dataclass(frozen=True)
class MixSpec:
  """How leaves are mixed. Hashable: optimizer states carry it as metadata.

  Attributes:
    sampler: Law of the masks, a key of `masks.SAMPLERS`.
    kept: Wanted fraction of active entries, ``1 - sparsity``.
    resample_every: Period k of the redraw, see `episodes`.
    target: What becomes of each leaf, see `targets.label_leaves`.
    decay_schedule: Schedule episode → λ; None if λ is a number.
    residual: "reset" (GMixout) or "keep" (Mixout).
    rescale: Whether the forward pass divides the residual by s.
    implementation: Of the kernels for stratified masks; None for the fastest
      that can run where the step is traced.
  """

  sampler: str
  kept: float
  resample_every: resampling.Period
  target: labels.Target | labels.Rules
  decay_schedule: resampling.Schedule | None
  residual: Residual
  rescale: bool
  implementation: Implementation | None

  @classmethod
  def create(
    cls,
    *,
    sparsity: float,
    sampler: str,
    resample_every: resampling.Period,
    target: labels.Target | labels.Rules,
    anchor_decay: Any,
    residual: Residual,
    rescale: bool,
    implementation: Implementation | None,
  ) -> "MixSpec":
    """Checks the arguments of `gmixout`, of which it keeps the static ones.

    Raises:
      ValueError: If one is out of range; the message quotes it.
      NotImplementedError: If `implementation` cannot run here; says why.
    """
    if isinstance(sparsity, jax.core.Tracer):
      raise ValueError(
        "sparsity sets array shapes, so it must be a Python float, got the"
        f" traced value {sparsity}; with optax.inject_hyperparams, name it in"
        " `static_args`."
      )
    if not _is_number(sparsity) or not 0 <= sparsity < 1:
      raise ValueError(
        "sparsity must be in [0, 1): the fraction of entries held at the"
        f" anchor, got {sparsity!r}."
      )
    _check_choice("sampler", sampler, tuple(samplers.SAMPLERS))
    _check_choice("residual", residual, ("reset", "keep"))
    resampling.check_period(resample_every)
    check_anchor_decay(anchor_decay)
    labels.check_target(target)
    kernel_layout.check_implementation(implementation, sampler)
    # 1 - 0.9 is 0.09999999999999998, of which ten entries would keep none.
    kept = round(1.0 - float(sparsity), 12)
    if isinstance(resample_every, numbers.Integral):
      resample_every = int(resample_every)
    return cls(
      sampler=sampler,
      kept=kept,
      resample_every=resample_every,
      target=target,
      decay_schedule=anchor_decay if callable(anchor_decay) else None,
      residual=residual,
      rescale=bool(rescale),
      implementation=implementation,
    )

  def decay(self, episode: jax.Array, constant: Any) -> jax.Array:
    """λ in an episode: the schedule's, or `constant` if there is none."""
    if self.decay_schedule is not None:
      constant = self.decay_schedule(episode)
    return jnp.asarray(constant, dtype=float)

  def labels(self, params: Any) -> list[str]:
    """Label of each leaf: "mixed", "dense" or "frozen".

    Raises:
      ValueError: If no leaf is targeted.
    """
    return labels.label_leaves(self.target, params)

  def mixed_leaves(self, params: Any) -> dict[int, mixed_leaf.MixedLeaf]:
    """How each mixed leaf is mixed, by its position among the leaves.

    Raises:
      ValueError: If no leaf is targeted, one is too small to keep an entry, or
        two have one path, which would give them one mask.
    """
    named = labels.named_leaves(params)
    labels.check_paths(named)
    return {
      i: self.mixed_leaf(*named[i])
      for i, label in enumerate(self.labels(params))
      if label == "mixed"
    }

  def mixed_leaf(self, path: str, leaf: Any) -> mixed_leaf.MixedLeaf:
    """How the leaf at `path` is mixed if it is."""
    layout = samplers.leaf_layout(self.sampler, path, leaf.shape, self.kept)
    if self.sampler == "stratified":
      by_kernels = kernel_layout.kernel_layout(
        path, leaf, self.kept, self.implementation
      )
      layout = by_kernels or layout
    scale = layout.kept_fraction if self.rescale else 1.0
    if self.residual == "reset":
      return mixed_leaf.ResetResidual(path, layout, scale)
    return mixed_leaf.KeptResidual(path, layout, scale)


def check_anchor_decay(anchor_decay: Any) -> None:
  """Raises ValueError unless λ is a number in [0, 1], traced, or a schedule."""
  if callable(anchor_decay) or isinstance(anchor_decay, jax.core.Tracer):
    return
  if not _is_number(anchor_decay) or not 0 <= anchor_decay <= 1:
    raise ValueError(
      "anchor_decay must be in [0, 1] or a schedule episode -> value, got"
      f" {anchor_decay!r}."
    )


def check_moments(moments: Any) -> None:
  """Raises ValueError unless `moments` is "carry" or "reset"."""
  _check_choice("moments", moments, ("carry", "reset"))


def raw_key(key: Any) -> np.ndarray | jax.Array:
  """Raw uint32 key data of a typed key, of key data, or of an int seed.

  A state holds raw data because `optax.lookahead(reset_state=True)` and
  `optax.contrib.sam` do arithmetic on states, which typed keys refuse.

  Args:
    key: Typed threefry key, uint32 key data ``[2]``, or an int.

  Returns:
    uint32 ``[2]``; a NumPy array unless traced, so that every state gets a
    buffer of its own and may be donated.

  Raises:
    ValueError: If it is none of these, or of another PRNG implementation.

  >>> raw_key(7)
  array([0, 7], dtype=uint32)
  """
  if isinstance(key, numbers.Integral) and not isinstance(key, bool):
    key = jax.random.key(int(key), impl="threefry2x32")
  key = threefry.key_data(
    key, "a typed PRNG key, its uint32 data of shape (2,), or an int"
  )
  return key if isinstance(key, jax.core.Tracer) else np.asarray(key)


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise ValueError(f"{name} must be one of {choices}, got {value!r}.")


def _is_number(value: Any) -> bool:
  """Whether it is a real scalar: Python, NumPy, or a concrete JAX array."""
  if isinstance(value, bool | jax.core.Tracer):
    return False
  return isinstance(value, numbers.Real) or (
    isinstance(value, np.ndarray | jax.Array)
    and value.ndim == 0
    and jnp.issubdtype(value.dtype, jnp.number)
  )
