"""Dense leaf ↔ packed active entries, for each way of indexing a leaf.

=============  =========================  ==============================
layout         indices                    packed array
=============  =========================  ==============================
`PerRow`       columns ``[..., k]``       ``[..., k]``
`WholeInputs`  inputs ``[*layers, r]``    the leaf with r of its inputs
`Anywhere`     flat positions ``[n]``     ``[n]``
=============  =========================  ==============================

`take` reads the active entries of a dense array; `put` spreads packed values
over zeros. Which entries are active is the business of the samplers in
`samplers`, each of which builds on one of these layouts.
"""

import abc
import dataclasses
import functools
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
    shape: Shape of the leaf, at least two axes.
    kept: Wanted fraction of active entries, in (0, 1].
    axes: What the axes mean, see `axes.letters`; None if unknown.
  """

  shape: tuple[int, ...]
  kept: float
  axes: str | None = None

  @property
  def size(self) -> int:
    """Number of entries of the leaf."""
    return math.prod(self.shape)

  @property
  @abc.abstractmethod
  def packed_shape(self) -> tuple[int, ...]:
    """Shape of the packed active entries."""

  @property
  def kept_fraction(self) -> float:
    """Fraction of entries that a draw makes active: the paper's s."""
    return math.prod(self.packed_shape) / self.size

  @property
  @abc.abstractmethod
  def largest_position(self) -> int:
    """The largest number that an index may have to hold."""

  @abc.abstractmethod
  def draw(self, key: jax.Array, like: jax.Array) -> jax.Array:
    """Draws indices from a threefry key, sharded as the leaf `like` is.

    Only the layout itself reads them.
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
    spread = self.put(packed, indices, dense)
    # Not promote_types: where promotion is strict, it refuses to widen.
    wide = max(dense.dtype, spread.dtype, key=lambda dtype: dtype.itemsize)
    return (dense.astype(wide) + spread.astype(wide)).astype(dense.dtype)

  def mask(self, indices: jax.Array, like: jax.Array) -> jax.Array:
    """Boolean ``[*shape]``, True at the active entries."""
    ones = jnp.ones(self.packed_shape, jnp.bool_)
    return self.put(ones, indices, like)

  @abc.abstractmethod
  def packed_names(self, names: tuple) -> tuple:
    """What stands for the axes of a packed array, given one name an axis.

    Whatever names an axis: a mesh axis, a logical one. The packed axis has
    None, which is replicated; the others keep their names.
    """

  def packed_zeros(self, leaf: Any, dtype: Any) -> jax.Array:
    """Packed zeros, laid out over devices as the leaf is.

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
    unnamed = (None,) * len(self.shape)
    names = (*sharding.spec, *unnamed)[: len(self.shape)]
    return NamedSharding(
      sharding.mesh, PartitionSpec(*self.packed_names(names))
    )


class PerRow(Layout):
  """The same number of active columns in every row; indices ``[..., k]``.

  Rows lie along the last axis, or along as many of the last axes as make a row
  long enough for its count to be right: see `strata.row_view`. Index j lies in
  stratum j of the row's k, from ``j·cols // k`` up to ``(j+1)·cols // k``, and
  `put` searches nowhere else.
  """

  @functools.cached_property
  def rows(self) -> leaves.StratifiedLeaf:
    """The leaf as rows, as kernels see it."""
    return leaves.StratifiedLeaf(self.shape, self.kept)

  @property
  def packed_shape(self) -> tuple[int, ...]:
    """``[..., k]``: the leaf with k instead of the axes of a row."""
    return self.rows.packed_shape

  @property
  def largest_position(self) -> int:
    """Rows are numbered, and columns in them."""
    return max(self.size // self.rows.cols, self.rows.cols)

  def take(self, dense: jax.Array, indices: jax.Array) -> jax.Array:
    """Gathers the active columns of each row."""
    return leaves.take(self.rows_of(dense), indices)

  def put(
    self, packed: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Lets each column ask its own stratum whether it was drawn."""
    rows = leaves.put(packed, indices, self.rows.cols)
    return _reshard(rows.reshape(self.shape), _spec(like))

  def rows_of(self, dense: jax.Array) -> jax.Array:
    """The leaf as rows, each of them whole on its device."""
    leading = len(self.rows.view) - 1
    whole = whole_along(dense, tuple(range(leading, dense.ndim)))
    return whole.reshape(self.rows.view)

  def packed_names(self, names: tuple) -> tuple:
    """Leading axes keep their names."""
    return (*names[: len(self.rows.view) - 1], None)


class WholeInputs(Layout):
  """Some inputs are active, each with all of its weights.

  Indices are ``[*layers, r]``: each layer of a stack has its own. Inputs that
  span several axes (heads x head_dim) are numbered in row-major order. Index j
  lies in stratum j of r, as in `PerRow`. The packed array has one axis of r in
  place of the inputs'.
  """

  @functools.cached_property
  def _inputs(self) -> slice:
    """Which axes are the inputs'."""
    assert self.axes is not None
    return slice(self.axes.index("i"), self.axes.rindex("i") + 1)

  @property
  def input_axes(self) -> tuple[int, ...]:
    """The axes that are inputs, side by side."""
    return tuple(range(self._inputs.start, self._inputs.stop))

  def of_layer(self) -> "WholeInputs":
    """The layout of one layer of a stack; itself if there is no stack."""
    assert self.axes is not None
    kept = [i for i, letter in enumerate(self.axes) if letter != "l"]
    return dataclasses.replace(
      self,
      shape=tuple(self.shape[i] for i in kept),
      axes="".join(self.axes[i] for i in kept),
    )

  @property
  def inputs(self) -> int:
    """Number of inputs of a layer."""
    return math.prod(self.shape[self._inputs])

  @property
  def count(self) -> int:
    """Active inputs of a layer, r."""
    return strata.stratum_count(self.inputs, self.kept)

  @property
  def layers(self) -> tuple[int, ...]:
    """Lengths of the axes that number layers."""
    assert self.axes is not None
    return tuple(
      length
      for letter, length in zip(self.axes, self.shape, strict=True)
      if letter == "l"
    )

  @property
  def packed_shape(self) -> tuple[int, ...]:
    """The leaf's shape with one axis of r in place of the inputs'."""
    return self.packed_names(self.shape, self.count)

  @property
  def largest_position(self) -> int:
    """Inputs are numbered."""
    return self.inputs

  def take(self, dense: jax.Array, indices: jax.Array) -> jax.Array:
    """Gathers the active inputs."""
    # A gather on an Explicit mesh would need the sharding of its result.
    names = self.packed_names(_spec(dense))
    whole = _reshard(dense, ())
    merged = whole.reshape(self.packed_names(self.shape, self.inputs))
    before = (slice(None),) * self._axis_in_layer

    def pick(layer: jax.Array, indices: jax.Array) -> jax.Array:
      return layer.at[(*before, indices)].get(mode="promise_in_bounds")

    return _reshard(self._by_layer(pick)(merged, indices), names)

  def put(
    self, packed: jax.Array, indices: jax.Array, like: jax.Array
  ) -> jax.Array:
    """Lets each input ask its own stratum whether it was drawn."""
    # The barrier is that of `leaves.put`.
    packed = jax.lax.optimization_barrier(_reshard(packed, ()))
    stratum = strata.stratum_of_column(self.inputs, self.count)
    own = np.arange(self.inputs, dtype=np.int32)
    before = (slice(None),) * self._axis_in_layer

    def spread(packed: jax.Array, indices: jax.Array) -> jax.Array:
      shape = [1] * packed.ndim
      shape[self._axis_in_layer] = self.inputs
      drawn = (indices[stratum] == own).reshape(shape)
      values = packed[(*before, stratum)]
      return jnp.where(drawn, values, jnp.zeros((), packed.dtype))

    dense = self._by_layer(spread)(packed, indices)
    return _reshard(dense.reshape(self.shape), _spec(like))

  def packed_names(self, names: tuple, packed: Any = None) -> tuple:
    """All axes but the inputs' keep their names."""
    inputs = self._inputs
    return (*names[: inputs.start], packed, *names[inputs.stop :])

  @property
  def _axis(self) -> int:
    """The inputs' axis once they are merged."""
    return self._inputs.start

  @property
  def _axis_in_layer(self) -> int:
    """The same with the layers' axes taken away."""
    assert self.axes is not None
    return self._axis - self.axes[: self._axis].count("l")

  def _by_layer(self, function: Any) -> Any:
    """Maps a function of (array, indices) over the axes that number layers."""
    assert self.axes is not None
    merged = "".join(self.packed_names(tuple(self.axes), "i"))
    for axis in reversed(
      [i for i, letter in enumerate(merged) if letter == "l"]
    ):
      # Outer maps have taken away the layers' axes before this one.
      axis -= merged[:axis].count("l")
      function = jax.vmap(function, in_axes=(axis, 0), out_axes=axis)
    return function


class Anywhere(Layout):
  """Any entries are active; indices are flat positions ``[n]``, in no order.

  A position equal to `size` marks an unused slot: it reads zero and writes
  nowhere. All other positions differ.
  """

  all_used: ClassVar[bool] = True
  """Whether no slot is ever unused."""

  @property
  def largest_position(self) -> int:
    """All entries are numbered, and one more marks an unused slot."""
    return self.size

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

  def packed_names(self, names: tuple) -> tuple:
    """Entries from anywhere have no axis to be split by."""
    del names
    return (None,)


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


def type_of(array: jax.Array) -> jax.ShapeDtypeStruct:
  """Shape, dtype and, on an Explicit mesh, sharding of an array."""
  return jax.ShapeDtypeStruct(
    array.shape, array.dtype, sharding=_explicit_sharding(array)
  )


def whole_along(array: jax.Array, axes: tuple[int, ...]) -> jax.Array:
  """The array with some of its axes whole on every device."""
  kept = (None if i in axes else name for i, name in enumerate(_spec(array)))
  return _reshard(array, tuple(kept))
