"""What the layers of an NNX model say of the axes of their parameters."""

from collections.abc import Iterator
from typing import Any

from flax import nnx

from gmixout_jax._core import layer_axes

_Own = tuple[str, str | None, tuple[int | None, ...]]


def axes_of_layers(model: Any) -> layer_axes.LayerAxes:
  """Letters of the parameters of all layers that Flax has."""
  known = {}
  for path, module in nnx.iter_modules(model):
    for name, letters, own in _parameters(module):
      variable = getattr(module, name)
      found = layer_axes.stacked(letters, own, tuple(variable.shape))
      known["/".join(map(str, (*path, name)))] = found
  return layer_axes.LayerAxes.of(known)


def _parameters(module: Any) -> Iterator[_Own]:
  """Name, letters and shape of a layer's matrices, were it no stack."""
  match module:
    case nnx.Linear():
      yield "kernel", "io", (module.in_features, module.out_features)
    case nnx.LinearGeneral():
      shapes = (
        tuple(module.batch_axis.values()),
        tuple(module.in_features),
        tuple(module.out_features),
      )
      batch, inputs, outputs = map(len, shapes)
      letters = layer_axes.general(inputs, outputs, batch)
      yield "kernel", letters, sum(shapes, ())
    case nnx.Einsum():
      letters = layer_axes.einsum(module.einsum_str)
      yield "kernel", letters, tuple(module.kernel_shape)
    case nnx.ConvTranspose():
      shape = tuple(module.kernel_shape)
      transposed = module.transpose_kernel
      letters = layer_axes.convolution(len(shape) - 2, transposed)
      yield "kernel", letters, shape
    case nnx.Conv():
      shape = tuple(module.kernel_shape)
      yield "kernel", layer_axes.convolution(len(shape) - 2), shape
    case nnx.Embed():
      # A token is an input that is 1 where all others are 0.
      yield "embedding", "io", (module.num_embeddings, module.features)
    case nnx.LoRA():
      yield "lora_a", "io", (module.in_features, None)
      yield "lora_b", "io", (None, module.out_features)
