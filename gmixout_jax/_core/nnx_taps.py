"""Taps in the products of NNX layers."""

from typing import Any

import jax
from flax import nnx
from flax.nnx.nn import dtypes

from gmixout_jax._core import layouts
from gmixout_jax._core.packed_grad import Tap

_LAYERS = (nnx.Linear, nnx.LinearGeneral, nnx.LoRALinear)

_WRAPPERS = (nnx.WeightNorm, nnx.SpectralNorm)
"""What changes the kernel of a layer before it calls that."""


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
  modules = list(nnx.iter_modules(model))
  wrappers = [path for path, module in modules if isinstance(module, _WRAPPERS)]
  for path, module in modules:
    tap = taps.get("/".join(map(str, (*path, "kernel"))))
    wrapped = any(path[: len(above)] == above for above in wrappers)
    if tap is not None and not wrapped and _takes(module, tap):
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
  fits = not own and rank == len(layout.shape)
  return fits and _multiplies_by_kernel(module)


def _multiplies_by_kernel(module: Any) -> bool:
  """Whether the product of a layer is with its kernel, at most cast.

  What else it may be is not known of a `__call__` that is not Flax's, such as
  one that standardizes the kernel first. Then the gradient is that of the
  weights, wherever they went.
  """
  classes = type(module).__mro__
  owner = next(cls for cls in classes if "__call__" in vars(cls))
  known = owner in _LAYERS or vars(owner).get("multiplies_by_kernel", False)
  return known and module.promote_dtype is dtypes.promote_dtype
