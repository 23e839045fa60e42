"""masked_mix for users: picks the implementation, knows the gradient."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels import leaf as leaves
from pallas_kernels.dispatch import Implementation
from pallas_kernels.masked_mix import reference
from pallas_kernels.pack import api as pack_api

Sampler = Literal["stratified", "bernoulli"]


def masked_mix(
  anchor: jax.Array,
  residual: jax.Array,
  key: jax.Array,
  *,
  kept: float,
  divisor: float | None = None,
  sampler: Sampler = "stratified",
  dtype: Any = None,
  first_row: jax.typing.ArrayLike = 0,
  implementation: Implementation | None = None,
) -> jax.Array:
  r"""Training weights from an anchor and the residual of what is trained now.

  .. math:: W = A + M \odot \Delta / s

  with A = `anchor`, Δ = `residual`, s = `divisor` and M the mask that `sampler`
  draws from `key`. Differentiable in `anchor` and `residual` (reverse mode).

  Args:
    anchor: ``[..., cols]``, float32 or a narrower float.
    residual: Likewise. "stratified": packed at the active entries, ``[..., k]``
      with k = `strata.stratum_count` (cols, kept), about ``cols * kept``; where
      rows are too short for that, see `strata.row_view`. "bernoulli": dense,
      like `anchor`, for the number of active entries varies.
    key: Key of the leaf's mask: a typed threefry key, or its raw data.
    kept: Wanted fraction of active entries, in (0, 1].
    divisor: s > 0, static; None for the fraction that `sampler` keeps: k/cols,
      or `kept`.
    sampler: "stratified", the very masks of `gx.gmixout`, or "bernoulli", where
      a random word for each entry decides. That is the mask distribution of the
      library's sampler of this name, which draws other masks of it.
    dtype: Type of the result; None for that of `anchor`. The sum is formed in
      float32 and rounded once.
    first_row: If `anchor` is a part of a leaf, the number of rows before it,
      so that parts on different devices draw what the whole would. May be
      traced.
    implementation: "xla", "mosaic_gpu" or "triton"; None picks the fastest
      that can run.

  Returns:
    ``[..., cols]``. Off the mask equal to `anchor` (rounded to `dtype`).

  Raises:
    ValueError: If shapes or dtypes do not fit, an argument is out of range, or
      a GPU kernel is asked for on a leaf of more than 2³¹ − 1 entries.
    NotImplementedError: If `implementation` cannot run here; says why.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> weights = masked_mix(
    ...   jnp.zeros((2, 20)), jnp.ones((2, 2)), jax.random.key(0), kept=0.1
    ... )
    >>> weights.sum(axis=1)  # two entries of 1/0.1 in every row
    Array([20., 20.], dtype=float32)
  """
  if sampler not in ("stratified", "bernoulli"):
    raise ValueError(
      f"sampler must be 'stratified' or 'bernoulli', got {sampler!r}."
    )
  leaf = leaves.StratifiedLeaf(anchor.shape, kept)
  leaves.check_weights("anchor", anchor)
  leaves.check_weights("residual", residual)
  if sampler == "stratified":
    leaf.check_packed("residual", residual)
  elif residual.shape != anchor.shape:
    raise ValueError(
      "with sampler='bernoulli' residual must have the shape of anchor,"
      f" {anchor.shape}, got {residual.shape}."
    )
  if divisor is None:
    divisor = leaf.kept_fraction if sampler == "stratified" else kept
  leaves.check_divisor(divisor)
  mix = _stratified if sampler == "stratified" else _bernoulli
  return mix(
    leaf,
    divisor,
    jnp.dtype(anchor.dtype if dtype is None else dtype),
    dispatch.choose(implementation),
    anchor,
    residual,
    leaves.seed(key, first_row),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _stratified(leaf, divisor, dtype, name, anchor, residual, seed):
  return dispatch.module("masked_mix", name).stratified(
    leaf, anchor, residual, seed, divisor=divisor, dtype=dtype
  )


def _stratified_forward(leaf, divisor, dtype, name, anchor, residual, seed):
  weights = _stratified(leaf, divisor, dtype, name, anchor, residual, seed)
  return weights, (seed, _like(anchor), _like(residual))


def _stratified_backward(leaf, divisor, dtype, name, saved, gradient):
  del dtype
  seed, anchor, residual = saved
  active = pack_api.pack_seeded(leaf, divisor, name, gradient, seed)
  return gradient.astype(anchor.dtype), active.astype(residual.dtype), None


_stratified.defvjp(_stratified_forward, _stratified_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _bernoulli(leaf, divisor, dtype, name, anchor, residual, seed):
  return dispatch.module("masked_mix", name).bernoulli(
    anchor, residual, seed, kept=leaf.kept, divisor=divisor, dtype=dtype
  )


def _bernoulli_forward(leaf, divisor, dtype, name, anchor, residual, seed):
  weights = _bernoulli(leaf, divisor, dtype, name, anchor, residual, seed)
  return weights, (seed, _like(anchor), _like(residual))


def _bernoulli_backward(leaf, divisor, dtype, name, saved, gradient):
  del dtype, name  # where-and-multiply: XLA fuses it into what comes next
  seed, anchor, residual = saved
  active = reference.bernoulli(
    jnp.zeros_like(gradient),
    gradient,
    seed,
    kept=leaf.kept,
    divisor=divisor,
    dtype=residual.dtype,
  )
  return gradient.astype(anchor.dtype), active, None


_bernoulli.defvjp(_bernoulli_forward, _bernoulli_backward)


def _like(array: jax.Array) -> jax.Array:
  """Carries a dtype into a backward pass, where only arrays may go."""
  return jnp.zeros((), array.dtype)
