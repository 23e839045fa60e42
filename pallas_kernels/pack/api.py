"""pack for users: picks the implementation, knows the gradient."""

import functools

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels import leaf as leaves
from pallas_kernels.dispatch import Implementation


def pack(
  dense: jax.Array,
  key: jax.Array,
  *,
  kept: float,
  divisor: float | None = None,
  first_row: jax.typing.ArrayLike = 0,
  implementation: Implementation | None = None,
) -> jax.Array:
  r"""Active entries of a dense array, scaled: the gradient of a residual.

  The transpose of `masked_mix` in its residual: with G = `dense` it returns
  the entries of :math:`G / s` where the stratified mask is. Differentiable
  (reverse mode).

  Args:
    dense: ``[..., cols]``, float32 or a narrower float.
    key: Key of the leaf's mask: a typed threefry key, or its raw data.
    kept: Wanted fraction of active entries, in (0, 1].
    divisor: s > 0, static; None for the exact fraction k/cols.
    first_row: If `dense` is a part of a leaf, the number of rows before it.
    implementation: "xla", "mosaic_gpu" or "triton"; None picks the fastest
      that can run.

  Returns:
    float32 ``[..., k]`` with k = `strata.stratum_count` (cols, kept), each row
    in the order of its columns; where rows are too short for that, see
    `strata.row_view`.

  Raises:
    ValueError: If an argument is out of range or of another type, or a GPU
      kernel is asked for on an array of more than 2³¹ − 1 entries.
    NotImplementedError: If `implementation` cannot run here; says why.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> pack(jnp.ones((2, 20)), jax.random.key(0), kept=0.1)
    Array([[10., 10.],
           [10., 10.]], dtype=float32)
  """
  leaf = leaves.StratifiedLeaf(dense.shape, kept)
  leaves.check_weights("dense", dense)
  divisor = leaf.kept_fraction if divisor is None else divisor
  leaves.check_divisor(divisor)
  return pack_seeded(
    leaf,
    divisor,
    dispatch.choose(implementation),
    dense,
    leaves.seed(key, first_row),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def pack_seeded(
  leaf: leaves.StratifiedLeaf,
  divisor: float,
  name: Implementation,
  dense: jax.Array,
  seed: jax.Array,
) -> jax.Array:
  """`pack` with its arguments checked; for the gradient of `masked_mix`."""
  return dispatch.module("pack", name).pack(leaf, dense, seed, divisor=divisor)


def _forward(leaf, divisor, name, dense, seed):
  packed = pack_seeded(leaf, divisor, name, dense, seed)
  return packed, (seed, jnp.zeros((), dense.dtype))


def _backward(leaf, divisor, name, saved, gradient):
  seed, dense = saved
  mix = dispatch.module("masked_mix", name)
  zeros = jnp.zeros(leaf.shape, dense.dtype)
  return (
    mix.stratified(
      leaf, zeros, gradient, seed, divisor=divisor, dtype=dense.dtype
    ),
    None,
  )


pack_seeded.defvjp(_forward, _backward)
