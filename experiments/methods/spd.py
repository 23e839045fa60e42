"""SPD: decay towards the pretrained weights, only where a step left them."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.methods.backbone_mask import in_backbone
from experiments.methods.composition import Trained


@dataclasses.dataclass(frozen=True)
class SPD(Trained):
  """Selective projection decay.

  Tian et al., 2024 (https://arxiv.org/abs/2411.01713). Per tensor, with w the
  weights before a step, ŵ after it and g the gradient at w: if
  ⟨g, w − w0⟩ > 0, that is if the loss would fall towards w0,

    ŵ ← ŵ − λ r (ŵ − w0),   r = clip((‖ŵ − w0‖ − ‖w − w0‖) / ‖ŵ − w0‖, 0, 1),

  so that with λ = 1 the step ends no farther from w0 than it began. The head,
  which is not pretrained, is left out.

  Attributes:
    strength: λ, at least 0. 1 is the projection; above it the weights are
      pulled nearer. The paper's values are not known to us.
  """

  title: ClassVar[str] = "SPD"
  strength: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    if not self.strength >= 0:
      raise ValueError(f"strength must be at least 0, got {self.strength}.")

  def wrap(
    self, optimizer: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """The optimizer, with its steps shortened."""
    return selective_projection(optimizer, self.strength)


class ProjectionState(NamedTuple):
  """State of `selective_projection`.

  Attributes:
    start: w0, like the parameters.
    inner_state: Of the optimizer.
  """

  start: Any
  inner_state: Any


def selective_projection(
  optimizer: optax.GradientTransformation, strength: float
) -> optax.GradientTransformationExtraArgs:
  """Shortens the steps of an optimizer; see `SPD`."""
  inner = optax.with_extra_args_support(optimizer)

  def init(params: Any) -> ProjectionState:
    return ProjectionState(jax.tree.map(jnp.copy, params), inner.init(params))

  def update(
    updates: Any, state: Any, params: Any = None, **extra: Any
  ) -> tuple[Any, ProjectionState]:
    steps, inner_state = inner.update(
      updates, state.inner_state, params, **extra
    )

    def shorten(inside, gradient, start, leaf, step):
      if not inside:
        return step
      before, after = leaf - start, leaf + step - start
      reached = jnp.linalg.norm(after.ravel())
      excess = reached - jnp.linalg.norm(before.ravel())
      ratio = jnp.clip(excess / jnp.maximum(reached, 1e-30), 0.0, 1.0)
      farther = jnp.vdot(gradient, before) > 0
      return step - jnp.where(farther, strength * ratio, 0.0) * after

    shortened = jax.tree.map(
      shorten, in_backbone(params), updates, state.start, params, steps
    )
    return shortened, ProjectionState(state.start, inner_state)

  return optax.GradientTransformationExtraArgs(init, update)
