"""Trees like the parameters whose leaves have another shape.

A parameter may stand in a box that tells how its axes are laid out over
devices: an NNX variable with ``out_sharding``, a Linen `Partitioned` or
`LogicallyPartitioned`. What is packed has other axes, so its box must tell of
those: the packed axis is replicated, the others keep their names.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from flax.core import meta
from jax.experimental.layout import Format
from jax.sharding import NamedSharding, PartitionSpec

from gmixout_jax._core.layouts import Layout


def packed_structure(params: Any, packed: Mapping[int, Layout]) -> Any:
  """The structure of a tree that holds some of its leaves packed.

  Args:
    params: The parameters, boxed or not.
    packed: The layouts of the leaves that are packed, by their position among
      the leaves.

  Returns:
    That of `params`, but for what the boxes of packed leaves say.
  """
  nodes, outer = jax.tree.flatten(params, is_leaf=_is_box)
  boxes, position = [], 0
  for node in nodes:
    count = len(jax.tree.leaves(node))
    boxed = _is_box(node) and count == 1 and position in packed
    boxes.append(_fitted(node, packed[position]) if boxed else node)
    position += count
  return jax.tree.structure(outer.unflatten(boxes))


def _is_box(node: Any) -> bool:
  return isinstance(node, nnx.Variable | meta.AxisMetadata)


def _fitted(box: Any, layout: Layout) -> Any:
  """The box with names for the axes of the packed leaf."""
  if isinstance(box, nnx.Variable):
    found = box.get_metadata()
    fitted = jax.tree.unflatten(jax.tree.structure(box), [0])
    for kind in ("out_sharding", "optimizer_sharding"):
      if found.get(kind):
        fitted.set_metadata(kind, _packed_sharding(layout, found[kind]))
    return fitted
  if isinstance(box, meta.Partitioned):
    return box.replace(names=_packed_names(layout, box.names))
  # A box of a kind that only its library can read: bare, nothing it says of
  # axes can be wrong.
  return 0


def _packed_sharding(layout: Layout, sharding: Any) -> Any:
  """What an NNX variable may say of its axes, said of the packed ones."""
  if isinstance(sharding, Format):  # an order in memory is for its shape only
    sharding = sharding.sharding
  if isinstance(sharding, NamedSharding):
    names = _packed_names(layout, sharding.spec)
    return NamedSharding(sharding.mesh, PartitionSpec(*names))
  if isinstance(sharding, PartitionSpec):
    return PartitionSpec(*_packed_names(layout, sharding))
  return None if sharding is None else _packed_names(layout, sharding)


def _packed_names(layout: Layout, names: Any) -> tuple:
  names = (*names, *(None,) * len(layout.shape))[: len(layout.shape)]
  return layout.packed_names(names)
