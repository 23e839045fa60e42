"""What the layers of a Linen module say of the axes of their parameters."""

from typing import Any

import jax
from flax import linen
from flax.core import meta

from gmixout_jax._core import layer_axes

_Shape = tuple[int, ...]


def axes_of_layers(
  module: linen.Module, rngs: Any, args: tuple, kwargs: dict[str, Any]
) -> layer_axes.LayerAxes:
  """Letters of the parameters of all layers that Flax has.

  Args:
    module: The module. It is initialized, but for the values.
    rngs: As for its `init`.
    args: As for its `init`; arrays may be `jax.ShapeDtypeStruct`.
    kwargs: As for its `init`.
  """
  layers: dict[str, tuple[str | None, _Shape]] = {}

  def record(function: Any, args: Any, kwargs: Any, context: Any) -> Any:
    result = function(*args, **kwargs)
    if context.method_name == "__call__":
      own = context.module
      for name, letters in _parameters(own, args, kwargs):
        if own.has_variable("params", name):
          # As the layer sees it, however many of them a scan has stacked.
          (leaf,) = jax.tree.leaves(own.get_variable("params", name))
          layers["/".join((*own.path, name))] = letters, leaf.shape
    return result

  leaves, treedef = jax.tree.flatten((args, kwargs))
  arrays = {i: x for i, x in enumerate(leaves) if hasattr(x, "shape")}

  def init(rngs: Any, arrays: dict[int, Any]) -> Any:
    given = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
    args, kwargs = treedef.unflatten(given)
    with linen.intercept_methods(record):
      return module.init(rngs, *args, **kwargs).get("params", {})

  params = jax.eval_shape(init, rngs, arrays)
  named, _ = jax.tree_util.tree_flatten_with_path(
    params, is_leaf=meta.is_axis_metadata
  )
  known = {}
  for path, box in named:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if name in layers:
      (leaf,) = jax.tree.leaves(box)
      letters, own = layers[name]
      known[name] = layer_axes.stacked(letters, own, leaf.shape)
  return layer_axes.LayerAxes.of(known)


def _parameters(
  module: linen.Module, args: tuple, kwargs: dict[str, Any]
) -> list[tuple[str, str | None]]:
  """Names and letters of a layer's matrices."""
  match module:
    case linen.Dense():
      return [("kernel", "io")]
    case linen.DenseGeneral():
      inputs, outputs, batch = (
        len(axes) if isinstance(axes, tuple | list) else 1
        for axes in (module.axis, module.features, module.batch_dims)
      )
      return [("kernel", layer_axes.general(inputs, outputs, batch))]
    case linen.Einsum():
      equation = dict(enumerate(args)).get(1) or kwargs.get("einsum_str")
      return [("kernel", layer_axes.einsum(equation or module.einsum_str))]
    case linen.ConvTranspose():
      window, transposed = _length(module.kernel_size), module.transpose_kernel
      return [("kernel", layer_axes.convolution(window, transposed))]
    case linen.Conv() | linen.ConvLocal():
      window = _length(module.kernel_size)
      return [("kernel", layer_axes.convolution(window))]
    case linen.Embed():
      # A token is an input that is 1 where all others are 0.
      return [("embedding", "io")]
  return []


def _length(kernel_size: Any) -> int:
  return 1 if isinstance(kernel_size, int) else len(kernel_size)
