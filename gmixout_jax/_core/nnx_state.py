"""Trees of NNX variables: of a model's parameters, of an optimizer's state."""

from typing import Any

import jax
from flax import nnx

# What a variable knows about its place on the devices.
_SHARDING = ("out_sharding", "sharding_rules", "mesh", "eager_sharding")


def as_dict(state: Any) -> Any:
  """A state as nested dicts, its variables as they are."""
  if isinstance(state, nnx.Variable):
    return state
  return {key: as_dict(part) for key, part in state.items()}


def variables(tree: Any) -> Any:
  """A tree with a variable for each array; they know how to be sharded."""

  def variable(node: Any) -> Any:
    if not isinstance(node, nnx.Variable):
      return nnx.OptArray(node)
    value, found = node.get_value(), node.get_metadata()
    if not jax.tree.leaves(value):  # what stands for a leaf that is not mixed
      return value
    kept = {key: found[key] for key in _SHARDING if key in found}
    if "optimizer_sharding" in found:
      kept["out_sharding"] = found["optimizer_sharding"]
    return nnx.OptVariable(value, **kept)

  return jax.tree.map(
    variable, tree, is_leaf=lambda node: isinstance(node, nnx.Variable)
  )


def assign(variables: Any, values: Any) -> None:
  """Writes arrays into variables that `variables` made."""
  is_variable = lambda node: isinstance(node, nnx.Variable)
  for variable, value in zip(
    jax.tree.leaves(variables, is_leaf=is_variable),
    jax.tree.leaves(values),
    strict=True,
  ):
    variable[...] = value
