"""Losses and gradients that are not finite: found, named, perhaps skipped.

A run stops at the first of them by default. It may be allowed to skip some in
a row, with the semantics of `optax.apply_if_finite`: a skipped step changes
neither weights nor optimizer state, and ends no episode of GMixout.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from experiments.training.run_checkpoints import RunCheckpointer


def guard(
  optimizer: optax.GradientTransformation, skip: int
) -> optax.GradientTransformationExtraArgs:
  """The optimizer, skipping up to `skip` steps in a row that are not finite.

  Raises:
    ValueError: If `skip` is negative.
  """
  if skip < 0:
    raise ValueError(f"skip_nonfinite must be at least 0 steps, got {skip}.")
  if skip:
    optimizer = optax.apply_if_finite(optimizer, max_consecutive_errors=skip)
  return optax.with_extra_args_support(optimizer)


def may_skip(opt_state: optax.OptState) -> bool:
  """Whether it is the state of an optimizer that may skip steps."""
  return isinstance(opt_state, optax.ApplyIfFiniteState)


def unguarded(opt_state: optax.OptState) -> optax.OptState:
  """The state of the optimizer that `guard` was given."""
  if isinstance(opt_state, optax.ApplyIfFiniteState):
    return opt_state.inner_state
  return opt_state


def skipped(opt_state: optax.OptState) -> int:
  """How many steps changed nothing."""
  if isinstance(opt_state, optax.ApplyIfFiniteState):
    return int(opt_state.total_notfinite)
  return 0


def finite(loss: Float[Array, ""], gradients: Any) -> Bool[Array, " n"]:
  """Whether the loss is finite, then whether each gradient leaf is."""
  tree = [loss, *jax.tree.leaves(gradients)]
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in tree])


def spoiled(gradients: Any, loss: Float[Array, ""]) -> Any:
  """Gradients that are NaN if the loss is not finite, else unchanged.

  `optax.apply_if_finite` checks gradients only, and those of an infinite loss
  may be finite.
  """
  poison = jnp.where(jnp.isfinite(loss), 0.0, jnp.nan)
  return jax.tree.map(
    lambda leaf: jnp.where(jnp.isnan(poison), poison, leaf).astype(leaf.dtype),
    gradients,
  )


def in_a_row(
  opt_state: optax.OptState, found: Bool[Array, " n"]
) -> Int[Array, ""]:
  """How many steps in a row were not finite, this one included.

  Args:
    opt_state: After the step.
    found: What `finite` returned.
  """
  if isinstance(opt_state, optax.ApplyIfFiniteState):
    return opt_state.notfinite_count
  return jnp.where(found.all(), 0, 1)


def check(
  step: int,
  loss: float,
  found: Bool[np.ndarray, " n"],
  trainable: Any,
  checkpointer: RunCheckpointer | None = None,
) -> None:
  """Stops a run whose step may not be skipped.

  Args:
    step: The step, from 0.
    loss: Its loss.
    found: What `finite` returned.
    trainable: The tree that the gradients are of.
    checkpointer: To tell from where the run can be resumed.

  Raises:
    FloatingPointError: If something is not finite.
  """
  if found.all():
    return
  names = [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in jax.tree.leaves_with_path(trainable)
  ]
  bad = [name for name, ok in zip(names, found[1:], strict=True) if not ok]
  gradients = (
    f"the first gradient that is not finite is that of {bad[0]!r}"
    if bad
    else "all gradients are finite"
  )
  kept = "" if checkpointer is None else f" {checkpointer.last()}"
  raise FloatingPointError(
    f"the loss of step {step} is {loss}; {gradients}.{kept}"
  )
