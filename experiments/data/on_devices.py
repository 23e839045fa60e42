"""Images in order, each batch cut up over the devices of a mesh.

Each process decodes the images of its own devices, and no others.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from experiments.data.images import ImageSet
from gmixout_jax import parallel


def batch_size(total: int, per_device: int, mesh: Mesh | None) -> int:
  """Images per batch: at most so many on each device, and no more than needed.

  Example:
    >>> batch_size(100, 64, None)
    64
    >>> batch_size(100, 64, parallel.data_mesh(jax.devices()[:1]))
    64
  """
  devices = 1 if mesh is None else mesh.size
  return devices * min(per_device, -(-total // devices))


def chunks(
  images: np.ndarray | ImageSet, size: int, mesh: Mesh
) -> Iterator[jax.Array]:
  """All images, `size` at a time; the last batch is filled up with its last.

  Args:
    images: One at least; the same on all processes.
    size: From `batch_size`.
    mesh: From `parallel.data_mesh`.

  Yields:
    Arrays [size, ...], cut up along their first axis.
  """
  total = len(images)
  rows = _rows_here(size, mesh)
  own = np.concatenate(
    [np.minimum(start + rows, total - 1) for start in range(0, total, size)]
  )
  if isinstance(images, ImageSet):
    parts = images.take(own).chunks(len(rows))
  else:
    parts = (
      images[own[start : start + len(rows)]]
      for start in range(0, len(own), len(rows))
    )
  for part in parts:
    yield _spread(part, rows, size, mesh)


def labels(
  values: Int[np.ndarray, " n"], size: int, mesh: Mesh
) -> Iterator[jax.Array]:
  """The labels of `chunks`, −1 where a batch was filled up."""
  rows = _rows_here(size, mesh)
  for start in range(0, len(values), size):
    whole = np.full(size, -1, values.dtype)
    part = values[start : start + size]
    whole[: len(part)] = part
    yield _spread(whole[rows], rows, size, mesh)


def _split(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec(parallel.AXIS))


def _rows_here(size: int, mesh: Mesh) -> Int[np.ndarray, " m"]:
  """Which rows of a batch lie on devices of this process, ascending."""
  parts: Any = _split(mesh).addressable_devices_indices_map((size,)).values()
  return np.unique(np.concatenate([np.arange(size)[part] for part in parts]))


def _spread(
  part: np.ndarray, rows: Int[np.ndarray, " m"], size: int, mesh: Mesh
) -> jax.Array:
  """A batch of which this process has some rows."""

  def of(index: Any) -> np.ndarray:
    first, last, _ = index[0].indices(size)
    here = np.searchsorted(rows, first)
    return part[here : here + last - first]

  shape = (size, *part.shape[1:])
  return jax.make_array_from_callback(shape, _split(mesh), of)
