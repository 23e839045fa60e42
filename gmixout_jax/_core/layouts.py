"""Dense leaf ↔ packed active entries, for each way of indexing a leaf.

A leaf ``[..., cols]`` is seen as a matrix ``[rows, cols]``. Its active entries
are addressed in one of three ways, and packed accordingly:

===========  ======================  =====================
layout       indices                 packed array
===========  ======================  =====================
`PerRow`     columns ``[..., k]``    ``[..., k]``
`WholeRows`  rows ``[r]``            ``[r, cols]``
`Anywhere`   flat positions ``[n]``  ``[n]``
===========  ======================  =====================

`take` reads the active entries of a dense array; `put` spreads packed values
over zeros. Which entries are active is the business of the samplers in
`masks`, each of which builds on one of these layouts.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pallas_kernels import leaf as leaves
from pallas_kernels import strata


@dataclasses.dataclass(frozen=True)
class Layout(abc.ABC):
  """The active entries of one leaf: how many, where, and how packed.

  Attributes:
    shape: Shape of the leaf, ``[..., cols]``, at least two axes.
    kept: Wanted fraction of active entries, in (0, 1].
  """

  shape: tuple[int, ...]
  kept: float

  @property
  def size(self) -> int:
    """Number of entries of the leaf."""
    return math.prod(self.shape)

  @property
  def rows(self) -> int:
    """Number of rows: the product of all axes but the last."""
    return math.prod(self.shape[:-1])

  @property
  def cols(self) -> int:
    """Number of columns: the last axis."""
    return self.shape[-1]

  @property
  @abc.abstractmethod
  def packed_shape(self) -> tuple[int, ...]:
    """Shape of the packed active entries."""

  @property
  def kept_fraction(self) -> float:
    """Fraction of entries that a draw makes active: the paper's s."""
    return math.prod(self.packed_shape) / self.size

  @abc.abstractmethod
  def draw(self, key: jax.Array, like: jax.Array) -> jax.Array:
    """Draws indices from a threefry key, sharded as the leaf `like` is.

    Only the layout itself looks into them.
    """

  @abc.abstractmethod
  def take(self, dense: jax.Array, indices: jax.Array) -> jax.Array:
    """Reads the active entries: ``[*shape]`` to ``[*packed_shape]``."""

  @abc.abstractmethod
  def put(
    self, packed: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Spreads packed values over zeros, sharded as the leaf `like` is."""

  def add(
    self, dense: jax.Array, packed: jax.Array, indices: jax.Array
  ) -> jax.Array:
    """Adds packed values to the active entries; keeps the dtype of `dense`."""
    return (dense + self.put(packed, indices, dense)).astype(dense.dtype)

  def mask(self, indices: jax.Array, like: jax.Array) -> jax.Array:
    """Boolean ``[*shape]``, True at the active entries."""
    ones = jnp.ones(self.packed_shape, jnp.bool_)
    return self.put(ones, indices, like)

  def packed_zeros(self, leaf: Any, dtype: Any) -> jax.Array:
    """Packed zeros, laid out over devices as the rows of `leaf` are.

    Args:
      leaf: The dense leaf: a concrete array, a tracer or a ShapeDtypeStruct.
      dtype: Type of the zeros.
    """
    explicit = self.packed_sharding(leaf)
    if explicit is not None:
      return jnp.zeros(self.packed_shape, dtype, out_sharding=explicit)
    sharding = getattr(leaf, "sharding", None)
    if isinstance(leaf, jax.core.Tracer) or not isinstance(
      sharding, NamedSharding
    ):
      return jnp.zeros(self.packed_shape, dtype)
    return jnp.zeros(
      self.packed_shape, dtype, device=self._packed_like(sharding)
    )

  def packed_sharding(self, leaf: Any) -> NamedSharding | None:
    """Sharding in the type of a packed array; None off an Explicit mesh."""
    sharding = _explicit_sharding(leaf)
    return None if sharding is None else self._packed_like(sharding)

  def _packed_like(self, sharding: NamedSharding) -> NamedSharding:
    rows = (*sharding.spec, *(None,) * len(self.shape))[: len(self.shape) - 1]
    return NamedSharding(sharding.mesh, self._packed_spec(rows))

  def _packed_spec(self, rows: tuple) -> PartitionSpec:
    """Partition of a packed array, given that of the leaf's leading axes."""
    del rows  # only `PerRow` keeps the leading axes
    return PartitionSpec(*(None for _ in self.packed_shape))


class PerRow(Layout):
  """The same number of active columns in every row; indices ``[..., k]``.

  Index j lies in stratum j of the row's k: from ``j·cols // k`` up to
  ``(j+1)·cols // k``. `put` looks for it nowhere else.
  """

  @property
  def packed_shape(self) -> tuple[int, ...]:
    """``[..., k]``: the leaf's shape with k instead of cols."""
    return (*self.shape[:-1], strata.stratum_count(self.cols, self.kept))

  def take(self, dense: jax.Array, indices: jax.Array) -> jax.Array:
    """Gathers the active columns of each row."""
    dense = _reshard(dense, (*_spec(dense)[:-1], None))
    return leaves.take(dense, indices)

  def put(
    self, packed: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Lets each column ask its own stratum whether it was drawn."""
    return _reshard(leaves.put(packed, indices, self.cols), _spec(like))

  def _packed_spec(self, rows: tuple) -> PartitionSpec:
    return PartitionSpec(*rows, None)


class WholeRows(Layout):
  """Some rows are active, with all of their columns; indices ``[r]``.

  Index j lies in stratum j of r, as in `PerRow`.
  """

  @property
  def packed_shape(self) -> tuple[int, ...]:
    """``[r, cols]``."""
    return (strata.stratum_count(self.rows, self.kept), self.cols)

  def take(self, dense: jax.Array, indices: jax.Array) -> jax.Array:
    """Gathers the active rows."""
    matrix = _reshard(dense, ()).reshape(self.rows, self.cols)
    return jnp.take(matrix, indices, axis=0, mode="clip")

  def put(
    self, packed: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Lets each row ask its own stratum whether it was drawn."""
    packed = jax.lax.optimization_barrier(packed)  # as in `leaves.put`
    stratum = strata.stratum_of_column(self.rows, packed.shape[0])
    drawn = indices[stratum] == np.arange(self.rows, dtype=np.int32)
    zero = jnp.zeros((), packed.dtype)
    matrix = jnp.where(drawn[:, None], packed[stratum], zero)
    return _reshard(matrix.reshape(self.shape), _spec(like))


class Anywhere(Layout):
  """Any entries are active; indices are flat positions ``[n]``, in no order.

  A position equal to `size` marks an unused slot: it reads zero and writes
  nowhere. All other positions differ.
  """

  all_used: ClassVar[bool] = True
  """Whether no slot is ever unused."""

  def take(self, dense: jax.Array, indices: jax.Array) -> jax.Array:
    """Gathers from the flattened leaf."""
    flat = jnp.asarray(_reshard(dense, ())).reshape(-1)
    return flat.at[indices].get(
      mode="promise_in_bounds" if self.all_used else "fill",
      fill_value=0,
      unique_indices=self.all_used,
    )

  def put(
    self, packed: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Scatters into the flattened leaf."""
    flat = jnp.zeros(self.size, packed.dtype)
    flat = flat.at[indices].set(
      packed,
      mode="promise_in_bounds" if self.all_used else "drop",
      unique_indices=self.all_used,
    )
    return _reshard(flat.reshape(self.shape), _spec(like))


def _explicit_sharding(array: Any) -> NamedSharding | None:
  """The sharding that is part of an array's type, on an Explicit mesh."""
  sharding = jax.typeof(array).sharding
  mesh = sharding.mesh
  if mesh.empty or AxisType.Explicit not in mesh.axis_types:
    return None
  return sharding


def _spec(array: jax.Array) -> tuple:
  """Partition in an array's type, one entry per axis; all None if untyped."""
  sharding = _explicit_sharding(array)
  return (None,) * array.ndim if sharding is None else tuple(sharding.spec)


def _reshard(array: jax.Array, spec: tuple) -> jax.Array:
  """Gives an array on an Explicit mesh the partition `spec`; else a no-op."""
  if _explicit_sharding(array) is None or _spec(array) == spec:
    return array
  return jax.sharding.reshard(array, PartitionSpec(*spec))
