"""FTP: each tensor stays in a ball, of a radius that is learned."""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from experiments.methods.backbone_mask import in_backbone
from experiments.methods.composition import Trained

Norm = Literal["l2", "mars"]

SMALLEST = 1e-8
"""The radius at first, and the smallest one later."""


@dataclasses.dataclass(frozen=True)
class FTP(Trained):
  """Fast trainable projection.

  Tian et al., 2023 (https://arxiv.org/abs/2310.19182). After every step of the
  optimizer to ŵ, per tensor, with δ = ŵ − w0:

    w ← w0 + min(1, γ/‖δ‖) δ.

  The radius γ has the gradient ⟨∂L/∂w, δ/‖δ‖⟩, with δ from the step before, so
  it learns from the next batch and not from held-out data. It is updated by
  Adam and clipped to [1e-8, ‖δ‖]. The head, which is not pretrained, is left
  out.

  With "mars", the only norm of the authors' public code, each row of δ has its
  own length, Σ |δ| + 1e-8 over the weights of one output. The row is scaled by
  min(1, γ/length), and γ, one per tensor, is clipped to the longest. Their Adam
  counts t = 2 at its first gradient, so the first update of γ is 0.744 times
  the rate and not the rate; so it is here with "mars". "l2" is the norm that
  TPGM, on which FTP is built, has for transformers. Result lines that name no
  norm were made with "l2".

  Attributes:
    radius_rate: Learning rate of γ, absolute: it times the number of steps
      bounds the distance of a tensor. The authors have 1e-2.
    shrink: k, the factor on gradients that shrink γ, at least 0; 0 never
      shrinks it.
    norm: ‖·‖, "l2" or "mars". A row of "mars" is a column of a Flax kernel, all
      weights of one output; of other tensors the first axis, as in PyTorch,
      and a vector is one row.
  """

  title: ClassVar[str] = "FTP"
  radius_rate: float = 1e-2
  shrink: float = 1.0
  norm: Norm = "l2"

  def __post_init__(self):
    super().__post_init__()
    if not self.shrink >= 0:
      raise ValueError(f"shrink must be at least 0, got {self.shrink}.")
    if self.norm not in get_args(Norm):
      raise ValueError(
        f"norm must be one of {get_args(Norm)}, got {self.norm!r}."
      )

  def wrap(
    self, optimizer: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """The optimizer, followed by the projection."""
    return trainable_projection(
      optimizer, self.radius_rate, self.shrink, self.norm
    )


class RadiusState(NamedTuple):
  """State of `trainable_projection`.

  Attributes:
    started: Whether a step was taken, so that `direction` means something.
    start: w0, like the parameters.
    direction: δ/‖δ‖ of the last step, row by row with "mars". The weights do
      not determine it: with a radius of 1e-8 they round to w0.
    radius: γ, one per leaf, in the order of `jax.tree.leaves`.
    radius_state: Of Adam, on the radii.
    inner_state: Of the optimizer.
  """

  started: Bool[Array, ""]
  start: Any
  direction: Any
  radius: Float[Array, " leaves"]
  radius_state: Any
  inner_state: Any


def trainable_projection(
  optimizer: optax.GradientTransformation,
  rate: float,
  shrink: float,
  norm: Norm = "l2",
) -> optax.GradientTransformationExtraArgs:
  """Follows an optimizer with projections; see `FTP`."""
  inner = optax.with_extra_args_support(optimizer)
  adam = optax.adam(rate)
  lengths = {"l2": _euclidean, "mars": _row_sums}[norm]

  def init(params: Any) -> RadiusState:
    # One vector for all leaves: hundreds of scalars take minutes to compile.
    radius = jnp.full(len(jax.tree.leaves(params)), SMALLEST)
    radius_state = adam.init(radius)
    if norm == "mars":
      one = jnp.ones([], jnp.int32)  # so that the first gradient finds t = 2
      radius_state = optax.tree.set(radius_state, count=one)
    return RadiusState(
      started=jnp.zeros([], jnp.bool_),
      start=jax.tree.map(jnp.copy, params),
      direction=optax.tree.zeros_like(params),
      radius=radius,
      radius_state=radius_state,
      inner_state=inner.init(params),
    )

  def update(
    updates: Any, state: Any, params: Any = None, **extra: Any
  ) -> tuple[Any, RadiusState]:
    slopes = _stack(jax.tree.map(jnp.vdot, updates, state.direction))
    slopes = jnp.where(slopes > 0, shrink * slopes, slopes)
    turns, radius_state = adam.update(slopes, state.radius_state)
    # The first step has no direction yet: neither γ nor Adam's count changes.
    turns, radius_state = jax.tree.map(
      lambda new, old: jnp.where(state.started, new, old),
      (turns, radius_state),
      (optax.tree.zeros_like(turns), state.radius_state),
    )
    steps, inner_state = inner.update(
      updates, state.inner_state, params, **extra
    )
    delta = jax.tree.map(
      lambda leaf, step, start: leaf + step - start,
      params,
      steps,
      state.start,
    )
    longest, inverse = lengths(delta)
    radius = jnp.clip(
      state.radius + turns, SMALLEST, jnp.maximum(longest, SMALLEST)
    )

    def project(inside, step, start, leaf, delta, inverse, radius):
      if not inside:
        return step
      return start + jnp.minimum(radius * inverse, 1.0) * delta - leaf

    projected = jax.tree.map(
      project,
      in_backbone(params),
      steps,
      state.start,
      params,
      delta,
      inverse,
      _unstack(radius, params),
    )
    return projected, RadiusState(
      started=jnp.ones([], jnp.bool_),
      start=state.start,
      direction=jax.tree.map(jnp.multiply, delta, inverse),
      radius=radius,
      radius_state=radius_state,
      inner_state=inner_state,
    )

  return optax.GradientTransformationExtraArgs(init, update)


def _euclidean(delta: Any) -> tuple[Float[Array, " leaves"], Any]:
  """Each leaf's ℓ2 length, and 1 / length."""
  length = jnp.sqrt(_stack(jax.tree.map(lambda leaf: jnp.sum(leaf**2), delta)))
  return length, _unstack(1 / jnp.maximum(length, 1e-30), delta)


def _row_sums(delta: Any) -> tuple[Float[Array, " leaves"], Any]:
  """Each leaf's longest row, and 1 / length of all of its rows."""

  def rows(path: Any, leaf: jax.Array) -> jax.Array:
    is_kernel = getattr(path[-1], "key", None) == "kernel"
    along = leaf.ndim - 1 if is_kernel else 0  # the axis that counts rows
    axes = [axis for axis in range(leaf.ndim) if axis != along or leaf.ndim < 2]
    return jnp.sum(jnp.abs(leaf), axis=axes, keepdims=True) + SMALLEST

  lengths = jax.tree_util.tree_map_with_path(rows, delta)
  longest = _stack(jax.tree.map(jnp.max, lengths))
  return longest, jax.tree.map(jnp.reciprocal, lengths)


def _stack(scalars: Any) -> Float[Array, " leaves"]:
  return jnp.stack(jax.tree.leaves(scalars))


def _unstack(rows: Float[Array, "leaves n"], like: Any) -> Any:
  return jax.tree.unflatten(jax.tree.structure(like), list(rows))
