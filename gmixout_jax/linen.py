"""Linen modules with packed gradients: the variables to apply them to.

Any Linen module works unchanged: its gradients come out packed. To also save
work and memory with the "neuron" sampler, the layers need another product: give
`flax.linen.Dense` and `flax.linen.DenseGeneral` the argument
``dot_general_cls=gx.linen.TappedDot``, and attention ``qkv_dot_general_cls``
and ``out_dot_general_cls``. It changes nothing in `init` or at evaluation. A
scanned stack of layers must also scan the collection "taps" over axis 0:
`flax.linen.scan` with ``variable_axes={"params": 0, "taps": 0}``.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen

from gmixout_jax._core import layouts, linen_axes
from gmixout_jax._core.packed_grad import Tap
from gmixout_jax.mixed_params import MixedParams

__all__ = [
  "TappedDot",
  "axes",
  "variables",
]

_COLLECTION = "taps"
_NAME = "kernel"


class TappedDot(linen.Module):
  """The `dot_general_cls` of a linear layer whose gradient comes out packed.

  For `flax.linen.Dense`, `flax.linen.DenseGeneral` and attention; see
  `variables`. It has no parameters. If the collection "taps" has no entry for
  the layer, it is `jax.lax.dot_general`.
  """

  @linen.compact
  def __call__(
    self,
    inputs: jax.Array,
    kernel: jax.Array,
    dimension_numbers: Any,
    **options: Any,
  ) -> jax.Array:
    """The product; see `jax.lax.dot_general` for the arguments."""
    dot = jax.lax.dot_general
    if self.has_variable(_COLLECTION, _NAME):
      dot = self.get_variable(_COLLECTION, _NAME).dot_general
    return dot(inputs, kernel, dimension_numbers, **options)


def axes(
  module: linen.Module, *args: Any, rngs: Any = None, **kwargs: Any
) -> Callable[[str, Any], str | None]:
  """Reads the meaning of parameter axes off a module's layers, for ``axes=``.

  Supported layers: `Dense`, `DenseGeneral` and so attention, `Conv`,
  `ConvLocal` and `ConvTranspose` of any rank, `Einsum` and `Embed`, also in
  stacks made by `flax.linen.scan` or `flax.linen.vmap`, where every layer has
  its own inputs. Nothing is computed.

  Args:
    module: The module.
    *args: Its arguments; a `jax.ShapeDtypeStruct` may stand for an array.
    rngs: As for its `init`; None makes ``params`` and ``dropout``.
    **kwargs: Its keyword arguments.

  Returns:
    A function (path, leaf) → letters, to be passed as ``axes=``. Leaves of
    other layers go by their names, as with ``axes="flax"``; a kernel with batch
    axes is unknown. Functions made from equal layers compare equal.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> import gmixout_jax as gx
    >>> model = nn.DenseGeneral((4, 5), axis=(-2, -1))
    >>> x = jnp.ones((8, 2, 10))
    >>> params = model.init(jax.random.key(0), x)["params"]
    >>> axes = gx.linen.axes(model, x)
    >>> axes("kernel", params["kernel"])
    'iioo'
    >>> mixed = gx.MixedParams.create(
    ...   params, sampler="neuron", axes=axes, target="kernel", key=0
    ... )
    >>> mixed.anchor["kernel"].shape
    (2, 4, 5)
  """
  if rngs is None:
    key = jax.random.key(0)
    rngs = {"params": key, "dropout": key}
  return linen_axes.axes_of_layers(module, rngs, args, kwargs)


def variables(mixed: MixedParams, trainable: Any) -> dict[str, Any]:
  """The variables of a module, with gradients that flow to `trainable`.

  Args:
    mixed: The mixed parameters, made from a module's ``"params"``.
    trainable: As `mixed.trainable` returns it; traced by `jax.grad`.

  Returns:
    The collections ``"params"`` and ``"taps"``, for `apply`. Add others, such
    as batch statistics, to the dict. For a stack of layers the layer axes of
    "taps" come first: a scan or vmap must map it over axis 0 (in nested stacks,
    as the parameters are mapped). If it is not mapped, the gradients are the
    same, but the backward pass saves no work.

  Raises:
    ValueError: As `MixedParams.inject`.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> from flax import linen as nn
    >>> import gmixout_jax as gx
    >>> model = nn.Dense(3, dot_general_cls=gx.linen.TappedDot)
    >>> x, y = jnp.ones((4, 20)), jnp.zeros((4, 3))
    >>> params = model.init(jax.random.key(0), x)["params"]
    >>> mixed = gx.MixedParams.create(params, sampler="neuron", key=0)
    >>> tx = optax.adamw(1e-3)
    >>> opt_state = tx.init(mixed.trainable())
    >>> @jax.jit
    ... def step(mixed, opt_state, x, y):
    ...   def loss(trainable):
    ...     out = model.apply(gx.linen.variables(mixed, trainable), x)
    ...     return jnp.mean((out - y) ** 2)
    ...   grads = jax.grad(loss)(mixed.trainable())
    ...   return mixed.apply_gradients(tx, grads, opt_state)
    >>> mixed, opt_state = step(mixed, opt_state, x, y)
    >>> out = model.apply({"params": mixed.eval_params()}, x)
  """
  taps, params = mixed._tapped(mixed._begun(), trainable)
  collection: dict[str, Any] = {}
  for path, tap in taps.items():
    *modules, name = path.split("/")
    if name == _NAME and _fits_products(tap):
      scope = collection
      for module in (*modules, f"{TappedDot.__name__}_0"):
        scope = scope.setdefault(module, {})
      scope[_NAME] = tap.of_layers()
  return {"params": params, _COLLECTION: collection}


def _fits_products(tap: Tap) -> bool:
  """Whether the product of a layer, cut by a scan or not, could have it."""
  layout = tap.mix.layout
  if isinstance(layout, layouts.WholeInputs):
    return layout.axes is not None and "s" not in layout.axes
  # Of other masks only one that cannot be a stack's, which a scan cannot cut.
  return len(layout.shape) == 2
