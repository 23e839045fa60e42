"""Taps in the products of NNX layers."""

from typing import Any

import jax
from flax import nnx

from gmixout_jax._core import layouts
from gmixout_jax._core.packed_grad import Tap


class TapVariable(nnx.Variable):
  """Part of a tap inside a model; for a stack of layers one of each."""


class TappedDot(nnx.Pytree):
  """The `dot_general` of a linear layer whose gradient goes to a tap."""

  def __init__(self, tap: Tap):
    self.residual = TapVariable(tap.residual)
    self.indices = TapVariable(tap.indices)
    self.mix = tap.mix

  def __call__(
    self,
    inputs: jax.Array,
    kernel: jax.Array,
    dimension_numbers: Any,
    **options: Any,
  ) -> jax.Array:
    """See `Tap.dot_general`."""
    tap = Tap(self.residual[...], self.indices[...], self.mix)
    return tap.dot_general(inputs, kernel, dimension_numbers, **options)


def put_taps(model: Any, taps: dict[str, Tap]) -> None:
  """Gives layers products with taps, in place.

  Args:
    model: The module. Linear layers with a product of their own keep it.
    taps: The tap of each mixed leaf by its '/'-joined path.
  """
  module: Any
  for path, module in nnx.iter_modules(model):
    tap = taps.get("/".join(map(str, (*path, "kernel"))))
    if tap is not None and _takes(module, tap):
      module.dot_general = nnx.data(TappedDot(tap.of_layers()))


def take_taps(model: Any) -> None:
  """Undoes `put_taps`."""
  module: Any
  for _, module in nnx.iter_modules(model):
    if isinstance(getattr(module, "dot_general", None), TappedDot):
      default = isinstance(module, nnx.Linear)
      module.dot_general = nnx.static(jax.lax.dot_general if default else None)


def _takes(module: Any, tap: Tap) -> bool:
  """Whether a layer's product can have the tap in it."""
  if isinstance(module, nnx.Linear):
    own = module.dot_general is not jax.lax.dot_general
    rank = 2
  elif isinstance(module, nnx.LinearGeneral):
    own = module.dot_general is not None or module.dot_general_cls is not None
    rank = len(module.batch_axis)
    rank += len(module.in_features) + len(module.out_features)
  else:
    return False
  layout = tap.mix.layout
  if isinstance(layout, layouts.WholeInputs):
    rank += len(layout.layers)
  # Else a stack, which cannot be cut; or its letters name no layers.
  return not own and rank == len(layout.shape)
