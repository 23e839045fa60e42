"""The stratified masks where GPU kernels find the active entries themselves.

XLA is given the active columns of each row, as many words as a leaf trains
weights. A kernel of `pallas_kernels` needs two: the mask's key, from which each
of its lanes draws the column that it works on. So in this layout the key stands
in for the indices. Which entries are active, and in which order they are
packed, is the same bit for bit.
"""

import dataclasses

import jax
import jax.numpy as jnp

from gmixout_jax._core import layouts
from pallas_kernels import dispatch
from pallas_kernels.dispatch import Implementation
from pallas_kernels.masked_mix.api import masked_mix
from pallas_kernels.pack.api import pack


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelStratified(layouts.PerRow):
  """As `samplers.Stratified`, by kernels; indices are the key's data ``[2]``.

  Attributes:
    implementation: Which kernels, other than "xla".
  """

  implementation: Implementation

  def draw(self, key: jax.Array, like: jax.Array) -> jax.Array:
    """Key data, uint32 ``[2]``: nothing is drawn before a kernel runs."""
    if self.packed_sharding(like) is not None:
      raise ValueError(
        f"implementation={self.implementation!r} works on the arrays of one"
        f" device, got a leaf of type {jax.typeof(like)} on an Explicit mesh:"
        " call it inside jax.shard_map, or use implementation='xla'."
      )
    return jax.random.key_data(key)

  def take(self, dense: jax.Array, indices: jax.Array) -> jax.Array:
    """One `pack`; float32, or wide enough for it, whatever `dense` is."""
    return pack(
      self.rows_of(dense),
      indices,
      kept=self.kept,
      divisor=1.0,
      implementation=self.implementation,
    )

  def put(
    self, packed: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """One `masked_mix` with zeros."""
    del like
    zeros = jnp.zeros(self.shape, packed.dtype)
    return self.add(zeros, packed, indices)

  def add(
    self, dense: jax.Array, packed: jax.Array, indices: jax.Array
  ) -> jax.Array:
    """One `masked_mix`."""
    rows = masked_mix(
      self.rows_of(dense),
      packed,
      indices,
      kept=self.kept,
      divisor=1.0,
      implementation=self.implementation,
    )
    return rows.reshape(self.shape)

  def mask(self, indices: jax.Array, like: jax.Array) -> jax.Array:
    """Where a `masked_mix` of ones is not zero."""
    return self.put(jnp.ones(self.packed_shape), indices, like) != 0


def check_implementation(
  implementation: Implementation | None, sampler: str
) -> None:
  """Raises unless kernels of that name can run here, with that sampler.

  Raises:
    ValueError: If there is no such implementation, or none for the sampler.
    NotImplementedError: If it cannot run on the default device; says why.
  """
  if implementation is None:
    return
  dispatch.choose(implementation)
  if implementation != "xla" and sampler != "stratified":
    raise ValueError(
      f"implementation={implementation!r} has kernels for sampler"
      f" 'stratified' only, got sampler={sampler!r}; use None or 'xla'."
    )


def kernel_layout(
  path: str,
  leaf: jax.ShapeDtypeStruct,
  layout: layouts.Layout,
  wanted: Implementation | None,
) -> KernelStratified | None:
  """The layout of a leaf whose masks are stratified, if kernels are to run.

  Args:
    path: The leaf's '/'-joined path, for messages.
    leaf: The leaf; its dtype counts.
    layout: Its layout by XLA.
    wanted: An implementation, or None for the fastest that can run.

  Returns:
    None if the leaf is XLA's.

  Raises:
    ValueError: If kernels are asked for by name and the leaf is not for them.
  """
  name = dispatch.choose(wanted)
  if name == "xla":
    return None
  kernels = KernelStratified(
    layout.shape, layout.kept, layout.axes, implementation=name
  )
  try:
    kernels.rows.check_positions()
    if leaf.dtype not in (jnp.float32, jnp.bfloat16):
      raise ValueError(
        f"a leaf of dtype {leaf.dtype} has no GPU kernels, which take float32"
        " and bfloat16; use implementation='xla'."
      )
  except ValueError as error:
    if wanted is None:
      return None
    raise ValueError(f"leaf {path!r}: {error}") from error
  return kernels
