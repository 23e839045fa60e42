"""The arithmetic of one active entry, which all implementations share.

Kernels run these lines lane by lane, the reference on packed arrays.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels.difference import difference


class PackedAdamState(NamedTuple):
  """What the active entries of a leaf carry from step to step.

  All are float32 ``[..., k]``, packed.

  Attributes:
    anchor: A. Stale before the first step of an episode, which reads it off
      the training weights.
    mu: AdamW's first moment.
    nu: AdamW's second moment.
    learned: V = A + Δ if the training weights are of low precision and would
      round small updates away; else None.
  """

  anchor: jax.Array
  mu: jax.Array
  nu: jax.Array
  learned: jax.Array | None = None


class Scalars(NamedTuple):
  """What is the same for all entries, float32 scalars. All may be traced.

  Attributes:
    learning_rate: η.
    b1: β₁.
    one_minus_b1: 1 − β₁, which in float32 is not what its name says.
    correction1: 1 − β₁ᵗ.
    b2: β₂.
    one_minus_b2: 1 − β₂.
    correction2: 1 − β₂ᵗ.
    eps: ε.
    weight_decay: ω, of the residual: it pulls towards the anchor.
    anchor_decay: λ.
    starts: 1 in the first step of an episode, else 0.
    ends: 1 in the last step of an episode, else 0.
  """

  learning_rate: jax.Array
  b1: jax.Array
  one_minus_b1: jax.Array
  correction1: jax.Array
  b2: jax.Array
  one_minus_b2: jax.Array
  correction2: jax.Array
  eps: jax.Array
  weight_decay: jax.Array
  anchor_decay: jax.Array
  starts: jax.Array
  ends: jax.Array


def step_entries(
  weights: jax.Array,
  gradient: jax.Array,
  memory: PackedAdamState,
  scalars: Scalars,
  divisor: float,
) -> tuple[jax.Array, PackedAdamState]:
  """One step of active entries.

  Args:
    weights: The training weights W, float32 or of low precision.
    gradient: ∂L/∂Δ, float32.
    memory: What they carry.
    scalars: What they have in common.
    divisor: s.

  Returns:
    The change of W, float32, and the memory after the step.
  """
  weights = weights.astype(jnp.float32)
  # As wide as the entries: kernels have no choice between arrays by a scalar.
  starts, ends = (
    jnp.broadcast_to(flag, weights.shape) > 0
    for flag in (scalars.starts, scalars.ends)
  )
  anchor = jnp.where(starts, weights, memory.anchor)
  if memory.learned is None:
    learned, residual = None, divisor * difference(weights, anchor)
  else:
    learned = jnp.where(starts, weights, memory.learned)
    residual = difference(learned, anchor)

  mu = scalars.one_minus_b1 * gradient + scalars.b1 * memory.mu
  nu = scalars.one_minus_b2 * (gradient * gradient) + scalars.b2 * memory.nu
  direction = (mu / scalars.correction1) / (
    jnp.sqrt(nu / scalars.correction2) + scalars.eps
  )
  update = -scalars.learning_rate * (
    direction + scalars.weight_decay * residual
  )

  # At the end of an episode W becomes A + (1−λ)Δ. In float32 that is a further
  # step, so that s = 1 and λ = 0 give AdamW itself; a low-precision W is set to
  # its exact target instead, which undoes the rounding of the last step.
  moved, kept = residual + update, 1 - scalars.anchor_decay
  if learned is None:
    merge = moved * (kept - 1 / divisor)
    change = update / divisor + jnp.where(ends, merge, jnp.zeros_like(merge))
  else:
    learned = learned + update
    wanted = anchor + jnp.where(ends, kept * moved, moved * (1 / divisor))
    change = difference(wanted, weights)
  return change, PackedAdamState(anchor, mu, nu, learned)
