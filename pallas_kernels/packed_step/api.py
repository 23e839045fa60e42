"""packed_step for users: checks arguments, picks the implementation."""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels import leaf as leaves
from pallas_kernels.dispatch import Implementation
from pallas_kernels.packed_step.arithmetic import PackedAdamState, Scalars

Number = jax.typing.ArrayLike


def packed_step(
  weights: jax.Array,
  gradient: jax.Array,
  memory: PackedAdamState,
  key: jax.Array,
  *,
  count: Number,
  learning_rate: Number,
  kept: float,
  b1: Number = 0.9,
  b2: Number = 0.999,
  eps: Number = 1e-8,
  weight_decay: Number = 1e-4,
  anchor_decay: Number = 0.3,
  starts: Number = False,
  ends: Number = False,
  divisor: float | None = None,
  packed_gradient: bool = False,
  first_row: Number = 0,
  implementation: Implementation | None = None,
) -> tuple[jax.Array, PackedAdamState]:
  r"""One AdamW step of GMixout on the active entries of a leaf, in place.

  .. math::

    g &= (\partial L / \partial W)_{idx} / s, \quad
    \Delta = s (W_{idx} - A) \\
    m &\leftarrow \beta_1 m + (1 - \beta_1) g, \quad
    v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
    u &= -\eta \left( \frac{m / (1 - \beta_1^t)}
      {\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \omega \Delta \right) \\
    W_{idx} &\leftarrow W_{idx} + u / s

  with the training weights W = `weights`, idx the active entries that `key`
  draws, A, m and v in `memory`, s = `divisor`, η = `learning_rate`, ω =
  `weight_decay`, ε = `eps` and t = `count`. The decay is AdamW's decoupled one
  and pulls towards the anchor.

  At the boundary of two episodes two flags come in, and the key of the new
  mask from then on. The last step of an episode (`ends`) merges: W becomes
  :math:`A + (1-λ)Δ` with λ = `anchor_decay`, which is where the anchor's
  average has arrived. The first step of the next (`starts`) reads its anchor
  off W at the new mask, whatever `memory.anchor` says. Moments are carried.
  The flags may be traced: a boundary costs no more than another step.

  Low-precision training weights would lose small updates to rounding. For
  them `memory` has `learned`, A + Δ, and W is its rounded image.

  Args:
    weights: ``[..., cols]``, float32 or bfloat16. Donate it, and `memory`, to
      the jitted step that calls this, and no copy is made.
    gradient: ∂L/∂W, ``[..., cols]``.
    memory: Of packed float32 arrays, see `init`.
    key: Key of the leaf's mask in this episode: a typed threefry key, or its
      raw data.
    count: t, this step's number from 1.
    learning_rate: η.
    kept: Wanted fraction of active entries, in (0, 1], static.
    b1: β₁.
    b2: β₂.
    eps: ε.
    weight_decay: ω.
    anchor_decay: λ in [0, 1].
    starts: Whether this is the first step of an episode.
    ends: Whether it is the last.
    divisor: s > 0, static; None for the exact fraction k/cols.
    packed_gradient: Whether `gradient` is ∂L/∂Δ instead, float32 ``[..., k]``,
      as `pack` makes it of ∂L/∂W.
    first_row: If `weights` is a part of a leaf, the number of rows before it.
    implementation: "xla", "mosaic_gpu" or "triton"; None picks the fastest
      that can run.

  Returns:
    The training weights and the memory after the step. Entries off the mask
    keep their bits.

  Raises:
    ValueError: If shapes or dtypes do not fit, `kept` or `divisor` is out of
      range, or a GPU kernel is asked for on a leaf of more than 2³¹ − 1
      entries. What may be traced is not checked.
    NotImplementedError: If `implementation` cannot run here; says why.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> weights = jnp.zeros((2, 20))
    >>> memory = init(weights, kept=0.1)
    >>> weights, memory = packed_step(
    ...   weights, jnp.ones((2, 20)), memory, jax.random.key(0),
    ...   count=1, learning_rate=0.1, kept=0.1, starts=True,
    ... )
    >>> weights.sum(axis=1).round(3)  # two entries a row change by η/s
    Array([-2., -2.], dtype=float32)

  References:
    Loshchilov & Hutter, *Decoupled Weight Decay Regularization*, 2019.
  """
  leaf = leaves.StratifiedLeaf(weights.shape, kept)
  _check(leaf, weights, gradient, memory, packed_gradient)
  divisor = leaf.kept_fraction if divisor is None else divisor
  leaves.check_divisor(divisor)
  module = dispatch.module("packed_step", dispatch.choose(implementation))
  if packed_gradient and leaf.packed_shape == weights.shape:
    # Implementations tell the two kinds by their shape.
    gradient = gradient * divisor
  stepped, memory = module.packed_step(
    leaf,
    weights,
    gradient,
    memory,
    _scalars(
      count,
      learning_rate=learning_rate,
      b1=b1,
      b2=b2,
      eps=eps,
      weight_decay=weight_decay,
      anchor_decay=anchor_decay,
      starts=starts,
      ends=ends,
    ),
    leaves.seed(key, first_row),
    divisor=divisor,
  )
  return stepped, memory


def init(weights: Any, *, kept: float) -> PackedAdamState:
  """The zeros that a leaf begins with, in a step that `starts`.

  Args:
    weights: The leaf: an array or a `jax.ShapeDtypeStruct`.
    kept: Wanted fraction of active entries, in (0, 1].

  >>> init(jnp.zeros((2, 20)), kept=0.1).mu.shape
  (2, 2)
  """
  shape = leaves.StratifiedLeaf(tuple(weights.shape), kept).packed_shape
  zeros = lambda: jnp.zeros(shape, jnp.float32)
  narrow = weights.dtype != jnp.float32
  return PackedAdamState(zeros(), zeros(), zeros(), zeros() if narrow else None)


def _scalars(count: Number, *, b1: Any, b2: Any, **rest: Any) -> Scalars:
  """Everything that is the same for all entries, in float32."""
  # As an operator it is refused where promotion is strict.
  power = lambda base: jax.lax.pow(
    jnp.asarray(base, dtype=float), jnp.asarray(count).astype(jnp.int32)
  )
  # `1 - b1` of a Python float is rounded once, as in Optax.
  values = dict(
    b1=b1,
    one_minus_b1=1 - b1,
    correction1=1 - power(b1),
    b2=b2,
    one_minus_b2=1 - b2,
    correction2=1 - power(b2),
    **rest,
  )
  return Scalars(
    **{n: jnp.asarray(v).astype(jnp.float32) for n, v in values.items()}
  )


def _check(
  leaf: leaves.StratifiedLeaf,
  weights: jax.Array,
  gradient: jax.Array,
  memory: PackedAdamState,
  packed_gradient: bool,
) -> None:
  """Raises ValueError unless the arrays of a step fit each other."""
  leaves.check_weights("weights", weights)
  if packed_gradient:
    leaf.check_packed("gradient", gradient)
    if gradient.dtype != jnp.float32:
      raise ValueError(
        f"gradient must be float32 if it is packed, got {gradient.dtype}."
      )
  elif gradient.shape != weights.shape:
    raise ValueError(
      f"gradient must have the shape of weights, {weights.shape}, got"
      f" {gradient.shape}; if it is packed, say packed_gradient=True."
    )
  for name, part in memory._asdict().items():
    if part is None:
      continue
    leaf.check_packed(f"memory.{name}", part)
    if part.dtype != jnp.float32:
      raise ValueError(f"memory.{name} must be float32, got {part.dtype}.")
  narrow = weights.dtype != jnp.float32
  if narrow != (memory.learned is not None):
    raise ValueError(
      f"memory.learned must be {'an array' if narrow else 'None'} for"
      f" weights of dtype {weights.dtype}."
    )
