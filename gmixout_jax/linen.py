"""Linen modules on the compact path: the variables to apply them to.

Any Linen module works as it is, since taps on its weights need no help from
the layers. For the work and the memory that the "neuron" sampler saves, a
layer must put the tap into its product: give `flax.linen.Dense` its own
argument ``dot_general_cls=gx.linen.TappedDot``. It changes nothing where there
are no taps, as in `init` and at evaluation.
"""

from typing import Any

import jax
from flax import linen

from gmixout_jax._core import packed_grad
from gmixout_jax.mixed_params import MixedParams

__all__ = [
  "TappedDot",
  "variables",
]

_COLLECTION = "taps"
_NAME = "kernel"


class TappedDot(linen.Module):
  """The `dot_general_cls` of a linear layer whose gradient goes to a tap."""

  @linen.compact
  def __call__(
    self,
    inputs: jax.Array,
    kernel: jax.Array,
    dimension_numbers: Any,
    **options: Any,
  ) -> jax.Array:
    """`Tap.dot_general`, or `jax.lax.dot_general` where there is no tap."""
    dot = jax.lax.dot_general
    if self.has_variable(_COLLECTION, _NAME):
      dot = self.get_variable(_COLLECTION, _NAME).dot_general
    return dot(inputs, kernel, dimension_numbers, **options)


def variables(mixed: MixedParams, trainable: Any) -> dict[str, Any]:
  """The variables of a module whose gradients go to `trainable`.

  Args:
    mixed: The mixed parameters, made from a module's ``"params"``.
    trainable: As `mixed.trainable` returns it; traced by `jax.grad`.

  Returns:
    The collections ``"params"`` and ``"taps"``, for `apply`. Add others, such
    as batch statistics, to the dict.

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
    ...   trainable = mixed.trainable()
    ...   grads = jax.grad(loss)(trainable)
    ...   updates, opt_state = tx.update(grads, opt_state, trainable)
    ...   return mixed.apply_updates(updates), opt_state
    >>> mixed, opt_state = step(mixed, opt_state, x, y)
    >>> out = model.apply({"params": mixed.eval_params()}, x)
  """
  begun = mixed._begun()
  leaves = mixed._leaves_of(begun, trainable)
  taps = packed_grad.taps(begun, leaves)
  collection: dict[str, Any] = {}
  for path, tap in taps.items():
    *modules, name = path.split("/")
    # A stack of kernels is for linen.scan to cut, which cannot cut its tap.
    if name == _NAME and len(tap.mix.layout.shape) == 2:
      scope = collection
      for module in (*modules, f"{TappedDot.__name__}_0"):
        scope = scope.setdefault(module, {})
      scope[_NAME] = tap
  params = packed_grad.tapped_weights(begun, taps, leaves)
  return {"params": params, _COLLECTION: collection}
