"""Anchor, residual and training weights of one mixed leaf.

The training weights W are the parameters that a user holds and the model
computes with. With s the kept fraction, A the anchor, Δ the residual and idx
the active entries of the current episode, W = A off idx and W = A + Δ/s on it.
What has to be remembered from step to step depends on the residual:

* `ResetResidual` (GMixout): Δ returns to zero with every redraw. A is stored
  at idx alone, packed, and Δ = s·(W − A) follows. Off idx, A is W. A
  low-precision dtype would round small updates away, so for such a leaf
  V = A + Δ is stored too, packed, and W is but its rounded image.
* `KeptResidual` (Mixout): Δ outlives the redraw. A and the learned weights
  V = A + Δ are stored densely, and W follows.

The anchor is read off W when it is first needed: at the first step of an
episode, or of the run if the residual is kept. So weights that were loaded
after `init`, or that a low-precision dtype has rounded, are those that count.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gmixout_jax._core import layouts
from gmixout_jax._core.resampling import Episode
from pallas_kernels.difference import difference

_LIKE_IEEE = frozenset(
  map(jnp.dtype, (jnp.float16, jnp.bfloat16, jnp.float8_e5m2))
)
"""Narrow types of which bits of exponent and mantissa tell all values. Others
have no infinity in favour of larger numbers, or another bias."""


class AnchorState(NamedTuple):
  """What one mixed leaf carries between steps, in float32 or wider.

  Attributes:
    anchor: A: packed at the active entries, or dense if the residual is kept.
    learned: V = A + Δ, like `anchor`; None where W tells it.
  """

  anchor: jax.Array
  learned: jax.Array | None = None


class LeafStep(NamedTuple):
  """What the arithmetic of one leaf needs to know about an optimizer step.

  Attributes:
    indices: The leaf's active entries in this step.
    redraw: Draws those of the next step, given whether the episode ends.
    episode: Where the step stands in its episode.
    anchor_decay: λ, scalar.
  """

  indices: jax.Array
  redraw: Callable[[jax.Array], jax.Array]
  episode: Episode
  anchor_decay: jax.Array


@dataclasses.dataclass(frozen=True)
class MixedLeaf(abc.ABC):
  """The arithmetic of one mixed leaf.

  Attributes:
    path: Its '/'-joined path, which its masks depend on.
    layout: How many entries are active, and how they are packed.
    divisor: s in W = A + M⊙Δ/s; 1 where the forward pass is not rescaled.
  """

  path: str
  layout: layouts.Layout
  divisor: float

  @property
  @abc.abstractmethod
  def packed_layout(self) -> layouts.Layout | None:
    """How Δ and memory are packed; None if they are dense."""

  @abc.abstractmethod
  def zero_residual(self, leaf: Any) -> jax.Array:
    """Δ = 0, in the shape that the inner optimizer sees."""

  @abc.abstractmethod
  def init(self, leaf: Any) -> AnchorState:
    """Memory of zeros; the first step reads the anchor off the leaf."""

  @abc.abstractmethod
  def begin(
    self, leaf: jax.Array, memory: AnchorState, step: LeafStep
  ) -> tuple[jax.Array, AnchorState]:
    """Δ before the step, and memory with the anchor read off if it is due."""

  def active(self, dense: jax.Array, indices: jax.Array) -> jax.Array:
    """The active entries of a dense update, in the shape of Δ."""
    packed = self.layout.take(dense, indices)
    packed = packed.astype(accumulator_dtype(dense))
    return self.spread(packed, indices, dense)

  @abc.abstractmethod
  def spread(
    self, packed: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Packed active entries in the shape of Δ, sharded as the leaf `like`."""

  @abc.abstractmethod
  def moved(
    self, residual: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """M⊙Δ/s: what Δ adds to the leaf `like`, in its shape and dtype."""

  @abc.abstractmethod
  def finish(
    self,
    leaf: jax.Array,
    residual: jax.Array,
    update: jax.Array,
    memory: AnchorState,
    step: LeafStep,
  ) -> tuple[jax.Array, AnchorState]:
    """Adds the inner optimizer's update to Δ, and ends an episode that is due.

    Args:
      leaf: Training weights before the step.
      residual: Δ before the step.
      update: What is added to it.
      memory: As `begin` returned it.
      step: What else is to be known about the step.

    Returns:
      The new training weights less the old ones, in the shape of Δ and in
      float32 or wider, and the memory after the step.
    """

  @abc.abstractmethod
  def dense(
    self, change: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """What `finish` returned as a change of the whole leaf, in its dtype.

    In a low-precision dtype a change that is larger than the weight it changes
    may be rounded, and so may miss what `changed` gives.
    """

  @abc.abstractmethod
  def changed(
    self, leaf: jax.Array, change: jax.Array, indices: jax.Array
  ) -> jax.Array:
    """The training weights after what `finish` returned, rounded once."""

  @abc.abstractmethod
  def evaluated(
    self, leaf: jax.Array, memory: AnchorState, step: LeafStep
  ) -> jax.Array:
    """The weights to evaluate."""


class ResetResidual(MixedLeaf):
  """GMixout: each episode starts from Δ = 0, and all memory is packed."""

  @property
  def packed_layout(self) -> layouts.Layout:
    """The layout of the active entries."""
    return self.layout

  def zero_residual(self, leaf: Any) -> jax.Array:
    """Packed zeros."""
    return self.layout.packed_zeros(leaf, accumulator_dtype(leaf))

  def init(self, leaf: Any) -> AnchorState:
    """A packed anchor; for a low-precision leaf packed learned weights too."""
    zeros = self.zero_residual(leaf)
    return AnchorState(zeros, zeros + 0 if is_low_precision(leaf) else None)

  def begin(
    self, leaf: jax.Array, memory: AnchorState, step: LeafStep
  ) -> tuple[jax.Array, AnchorState]:
    """Reads A off W at the start of an episode; Δ = s·(W − A), or V − A."""
    weights = self.active(leaf, step.indices)
    anchor = jnp.where(step.episode.starts, weights, memory.anchor)
    if memory.learned is None:
      return self.divisor * difference(weights, anchor), AnchorState(anchor)
    learned = jnp.where(step.episode.starts, weights, memory.learned)
    return difference(learned, anchor), AnchorState(anchor, learned)

  def spread(
    self, packed: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Nothing to do: Δ is packed."""
    del indices, like
    return packed

  def moved(
    self, residual: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Zero off the mask."""
    change = (residual / self.divisor).astype(like.dtype)
    return self.layout.put(change, indices, like)

  def finish(
    self,
    leaf: jax.Array,
    residual: jax.Array,
    update: jax.Array,
    memory: AnchorState,
    step: LeafStep,
  ) -> tuple[jax.Array, AnchorState]:
    """W[idx] changes by u/s; at an episode's end it becomes A + (1−λ)Δ.

    As W[idx] is A + Δ/s by then, the end is a further change of
    Δ·((1−λ) − 1/s). Written so, and not as a difference of weights, s = 1 and
    λ = 0 give the inner optimizer to the last bit. A low-precision leaf is set
    to its exact target instead, which undoes the rounding of the last step.
    """
    ends = step.episode.ends
    decay = step.anchor_decay.astype(residual.dtype)
    if memory.learned is None:
      merge = (residual + update) * ((1 - decay) - 1 / self.divisor)
      change = update / self.divisor + jnp.where(ends, merge, 0)
    else:
      memory = memory._replace(learned=memory.learned + update)
      factor = jnp.where(ends, 1 - decay, 1 / self.divisor)
      wanted = memory.anchor + factor * (residual + update)
      change = difference(wanted, self.active(leaf, step.indices))
    return change, memory

  def dense(
    self, change: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Zero off the mask."""
    if is_low_precision(like):
      change = _representable(self.active(like, indices), change, like.dtype)
    return self.layout.put(change.astype(like.dtype), indices, like)

  def changed(
    self, leaf: jax.Array, change: jax.Array, indices: jax.Array
  ) -> jax.Array:
    """Off the mask the weights stay as they are."""
    return self.layout.add(leaf, change, indices)

  def evaluated(
    self, leaf: jax.Array, memory: AnchorState, step: LeafStep
  ) -> jax.Array:
    """A + (1−λ)Δ: where the episode would leave the anchor if it ended now."""
    residual, memory = self.begin(leaf, memory, step)
    decay = step.anchor_decay.astype(residual.dtype)
    merged = memory.anchor + (1 - decay) * residual
    merged = self.layout.put(merged.astype(leaf.dtype), step.indices, leaf)
    return jnp.where(self.layout.mask(step.indices, leaf), merged, leaf)


class KeptResidual(MixedLeaf):
  """Mixout: Δ is dense and outlives every redraw of the mask."""

  @property
  def packed_layout(self) -> None:
    """Nothing is packed."""

  def zero_residual(self, leaf: Any) -> jax.Array:
    """Dense zeros."""
    return jnp.zeros_like(leaf, dtype=accumulator_dtype(leaf))

  def init(self, leaf: Any) -> AnchorState:
    """A dense anchor and dense learned weights."""
    return AnchorState(self.zero_residual(leaf), self.zero_residual(leaf))

  def begin(
    self, leaf: jax.Array, memory: AnchorState, step: LeafStep
  ) -> tuple[jax.Array, AnchorState]:
    """Reads A and V off W at the first step of the run; Δ = V − A."""
    assert memory.learned is not None
    first = step.episode.starts & (step.episode.number == 0)
    weights = leaf.astype(accumulator_dtype(leaf))
    anchor = jnp.where(first, weights, memory.anchor)
    learned = jnp.where(first, weights, memory.learned)
    return difference(learned, anchor), AnchorState(anchor, learned)

  def spread(
    self, packed: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Zeroes what is not active."""
    return self.layout.put(packed, indices, like)

  def moved(
    self, residual: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Zero off the mask."""
    change = (residual / self.divisor).astype(like.dtype)
    return jnp.where(self.layout.mask(indices, like), change, 0)

  def finish(
    self,
    leaf: jax.Array,
    residual: jax.Array,
    update: jax.Array,
    memory: AnchorState,
    step: LeafStep,
  ) -> tuple[jax.Array, AnchorState]:
    """V = A + Δ; at an episode's end A follows V; W = A + M⊙(V − A)/s."""
    del residual
    assert memory.learned is not None
    learned = memory.learned + update
    decay = step.anchor_decay.astype(learned.dtype)
    follow = (1 - decay) * difference(learned, memory.anchor)
    anchor = memory.anchor + jnp.where(step.episode.ends, follow, 0)
    mask = self.layout.mask(step.redraw(step.episode.ends), leaf)
    moved = difference(learned, anchor) / self.divisor
    weights = anchor + jnp.where(mask, moved, 0)
    change = difference(weights, leaf.astype(weights.dtype))
    return change, AnchorState(anchor, learned)

  def dense(
    self, change: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """It is dense already."""
    del indices
    if is_low_precision(like):
      change = _representable(like, change, like.dtype)
    return change.astype(like.dtype)

  def changed(
    self, leaf: jax.Array, change: jax.Array, indices: jax.Array
  ) -> jax.Array:
    """The sum."""
    del indices
    return (leaf.astype(change.dtype) + change).astype(leaf.dtype)

  def evaluated(
    self, leaf: jax.Array, memory: AnchorState, step: LeafStep
  ) -> jax.Array:
    """V, the weights that Mixout has learned."""
    _, memory = self.begin(leaf, memory, step)
    assert memory.learned is not None
    return memory.learned.astype(leaf.dtype)


def accumulator_dtype(leaf: Any) -> Any:
  """Anchors and residuals are never narrower than float32.

  Not `jnp.promote_types`, which refuses bfloat16 beside float32 where promotion
  is strict.
  """
  dtype = jnp.dtype(jax.dtypes.canonicalize_dtype(leaf.dtype))
  return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def is_low_precision(leaf: Any) -> bool:
  return jnp.dtype(leaf.dtype).itemsize < 4


def _representable(
  weights: jax.Array, change: jax.Array, dtype: Any
) -> jax.Array:
  """The change to the low-precision weights nearest to `weights + change`.

  If weights were to add a rounded change, they would be rounded twice. The
  difference of two such numbers is exact if neither is twice the other.
  """
  info, weights = jnp.finfo(dtype), weights.astype(change.dtype)
  wanted = weights + change
  if jnp.dtype(dtype) not in _LIKE_IEEE:
    rounded = jax.lax.optimization_barrier(wanted.astype(dtype))
    return difference(rounded.astype(change.dtype), weights)
  # Not astype, there and back: XLA takes that for the identity.
  nearest = jax.lax.reduce_precision(wanted, info.nexp, info.nmant)
  if info.tiny > jnp.finfo(change.dtype).tiny:
    # Which takes subnormal numbers for zero; in float16 those are weights.
    step = jnp.asarray(info.smallest_subnormal, change.dtype)
    subnormal = jnp.abs(wanted) < jnp.asarray(info.tiny, change.dtype)
    nearest = jnp.where(subnormal, jnp.round(wanted / step) * step, nearest)
  return difference(nearest, weights)
