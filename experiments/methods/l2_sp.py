"""L2-SP: a spring from every weight to its pretrained value."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.methods.backbone_mask import in_backbone
from experiments.methods.composition import Trained


@dataclasses.dataclass(frozen=True)
class L2SP(Trained):
  """Adds α/2 ‖w − w0‖² on the backbone and β/2 ‖w‖² on the head to the loss.

  Li, Grandvalet, Davoine, 2018 (https://arxiv.org/abs/1802.01483). Only the
  gradient of the penalty is added, so reported losses are without it. The paper
  uses SGD; AdamW, used here, normalises that gradient with the rest.

  Attributes:
    alpha: α, at least 0; the paper has 0.1.
    beta: β, at least 0; the paper has 0.01.
  """

  title: ClassVar[str] = "L2-SP"
  alpha: float = 0.1
  beta: float = 0.01

  def __post_init__(self):
    super().__post_init__()
    for name in ("alpha", "beta"):
      if not (value := getattr(self, name)) >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}.")

  def wrap(
    self, optimizer: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """The gradients of the penalties, then the optimizer."""
    return optax.chain(add_spring(self.alpha, self.beta), optimizer)


class SpringState(NamedTuple):
  """State of `add_spring`.

  Attributes:
    start: w0, like the parameters; zeros for the head.
  """

  start: Any


def add_spring(alpha: float, beta: float) -> optax.GradientTransformation:
  """Adds α (w − w0) to the gradients of the backbone, β w to the head's.

  Example:
    >>> params = {"backbone": jnp.array(1.0), "head": jnp.array(2.0)}
    >>> spring = add_spring(0.5, 0.25)
    >>> state = spring.init(params)
    >>> zeros = optax.tree.zeros_like(params)
    >>> tuned = {"backbone": jnp.array(3.0), "head": jnp.array(2.0)}
    >>> pulled, _ = spring.update(zeros, state, tuned)
    >>> float(pulled["backbone"])  # 0.5 · (3 − 1)
    1.0
  """

  def init(params: Any) -> SpringState:
    return SpringState(
      jax.tree.map(
        lambda inside, leaf: jnp.where(inside, leaf, jnp.zeros_like(leaf)),
        in_backbone(params),
        params,
      )
    )

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    pulled = jax.tree.map(
      lambda inside, gradient, start, leaf: (
        gradient + (alpha if inside else beta) * (leaf - start)
      ),
      in_backbone(params),
      updates,
      state.start,
      params,
    )
    return pulled, state

  return optax.GradientTransformation(init, update)
