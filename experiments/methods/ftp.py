"""FTP: each tensor stays in a ball, of a radius that is learned."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from experiments.methods.composition import Trained
from experiments.methods.parts import in_backbone

SMALLEST = 1e-8
"""The radius at first, and the smallest one later."""


@dataclasses.dataclass(frozen=True)
class FTP(Trained):
  """Fast trainable projection.

  Tian et al., 2023 (https://arxiv.org/abs/2310.19182). After every step of the
  optimizer to ŵ, per tensor, with δ = ŵ − w0:

    w ← w0 + min(1, γ/‖δ‖) δ.

  The radius γ has the gradient ⟨∂L/∂w, δ/‖δ‖⟩, with δ from the step before, so
  it learns from the next batch and not from held-out data. Adam moves it, and
  it is clipped to [1e-8, ‖δ‖]. The head, which is not pretrained, is left out.
  The norm is ℓ2, the authors' for transformers.

  Attributes:
    radius_rate: Learning rate of γ, absolute: how far a tensor gets is at most
      this times the number of steps. The authors have 1e-2.
    shrink: k, what a gradient that shrinks γ is multiplied by, at least 0; 0
      never shrinks it.
  """

  title: ClassVar[str] = "FTP"
  radius_rate: float = 1e-2
  shrink: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    if not self.shrink >= 0:
      raise ValueError(f"shrink must be at least 0, got {self.shrink}.")

  def wrap(
    self, optimizer: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """The optimizer, followed by the projection."""
    return trainable_projection(optimizer, self.radius_rate, self.shrink)


class RadiusState(NamedTuple):
  """State of `trainable_projection`.

  Attributes:
    started: Whether a step was taken, so that `direction` means something.
    start: w0, like the parameters.
    direction: δ/‖δ‖ of the last step. Not to be had from the weights: with a
      radius of 1e-8 they round to w0.
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
  optimizer: optax.GradientTransformation, rate: float, shrink: float
) -> optax.GradientTransformationExtraArgs:
  """Follows an optimizer with projections; see `FTP`."""
  inner = optax.with_extra_args_support(optimizer)
  adam = optax.adam(rate)

  def init(params: Any) -> RadiusState:
    # One vector for all leaves: hundreds of scalars take minutes to compile.
    radius = jnp.full(len(jax.tree.leaves(params)), SMALLEST)
    return RadiusState(
      started=jnp.zeros([], jnp.bool_),
      start=jax.tree.map(jnp.copy, params),
      direction=optax.tree.zeros_like(params),
      radius=radius,
      radius_state=adam.init(radius),
      inner_state=inner.init(params),
    )

  def update(
    updates: Any, state: Any, params: Any = None, **extra: Any
  ) -> tuple[Any, RadiusState]:
    slopes = _stack(jax.tree.map(jnp.vdot, updates, state.direction))
    slopes = jnp.where(slopes > 0, shrink * slopes, slopes)
    turns, radius_state = adam.update(slopes, state.radius_state)
    # The first step has no direction yet: neither γ nor Adam's count moves.
    turns, radius_state = jax.tree.map(
      lambda new, old: jnp.where(state.started, new, old),
      (turns, radius_state),
      (optax.tree.zeros_like(turns), state.radius_state),
    )
    moves, inner_state = inner.update(
      updates, state.inner_state, params, **extra
    )
    away = jax.tree.map(
      lambda leaf, move, start: leaf + move - start, params, moves, state.start
    )
    length = jnp.sqrt(_stack(jax.tree.map(lambda leaf: jnp.sum(leaf**2), away)))
    radius = jnp.clip(
      state.radius + turns, SMALLEST, jnp.maximum(length, SMALLEST)
    )
    inverse = 1 / jnp.maximum(length, 1e-30)
    ratio = jnp.minimum(radius * inverse, 1.0)
    scales = _unstack(jnp.stack([inverse, ratio], axis=1), params)

    def project(inside, move, start, leaf, away, scale):
      return start + scale[1] * away - leaf if inside else move

    projected = jax.tree.map(
      project,
      in_backbone(params),
      moves,
      state.start,
      params,
      away,
      scales,
    )
    return projected, RadiusState(
      started=jnp.ones([], jnp.bool_),
      start=state.start,
      direction=jax.tree.map(lambda leaf, s: leaf * s[0], away, scales),
      radius=radius,
      radius_state=radius_state,
      inner_state=inner_state,
    )

  return optax.GradientTransformationExtraArgs(init, update)


def _stack(scalars: Any) -> Float[Array, " leaves"]:
  return jnp.stack(jax.tree.leaves(scalars))


def _unstack(rows: Float[Array, "leaves n"], like: Any) -> Any:
  return jax.tree.unflatten(jax.tree.structure(like), list(rows))
