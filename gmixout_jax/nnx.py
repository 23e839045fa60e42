"""NNX modules with packed gradients: two functions and an optimizer.

`split` and `merge` replace `flax.nnx.split` and `flax.nnx.merge` in a
functional training step. `MixedOptimizer` replaces `flax.nnx.Optimizer` in a
step that works on modules. Both run in graph mode and in tree mode.

Inside the loss the model is unchanged except that the `dot_general` of each
linear layer with a mixed kernel (`flax.nnx.Linear` and
`flax.nnx.LinearGeneral`, and so attention) is a product whose gradient comes
out packed. In a stack of layers it is a stack of products, which
`flax.nnx.scan` maps over axis 0 with all else. Other layers, linear layers with
their own `dot_general`, and stacks mapped over another axis get the same
gradients from their weights.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Unpack

import jax
import optax
from flax import nnx

from gmixout_jax._core import nnx_axes, nnx_state
from gmixout_jax._core.nnx_taps import put_taps, take_taps
from gmixout_jax._core.settings import MixSettings, takes_settings
from gmixout_jax.fused_adamw import FusedAdamW
from gmixout_jax.mixed_params import MixedParams

__all__ = [
  "MixedOptimizer",
  "axes",
  "merge",
  "split",
]


def axes(model: Any) -> Callable[[str, Any], str | None]:
  """Reads the meaning of parameter axes off a model's layers, for ``axes=``.

  Supported layers: `Linear`, `LinearGeneral` and so attention, `Conv` and
  `ConvTranspose` of any rank, `Einsum`, `Embed` and `LoRA`, also in stacks made
  by `flax.nnx.vmap`, where every layer has its own inputs.

  Args:
    model: An NNX module. Of its arrays only the shapes count.

  Returns:
    A function (path, leaf) → letters, to be passed as ``axes=``. Leaves of
    other layers go by their names, as with ``axes="flax"``; a kernel with batch
    axes is unknown. Functions made from equal layers compare equal.

  Example:
    >>> from flax import nnx
    >>> import gmixout_jax as gx
    >>> model = nnx.LinearGeneral((2, 10), (4, 5), rngs=nnx.Rngs(0),
    ...   axis=(-2, -1))
    >>> gx.nnx.axes(model)("kernel", model.kernel)
    'iioo'
  """
  return nnx_axes.axes_of_layers(model)


@takes_settings
def split(
  model: Any,
  *,
  wrt: nnx.filterlib.Filter = nnx.Param,
  key: jax.Array | int,
  **settings: Unpack[MixSettings],
) -> tuple[Any, MixedParams, Any]:
  """Splits a module like `flax.nnx.split`, with its parameters mixed.

  Args:
    model: An NNX module.
    wrt: What its parameters are.
    key: As for `gmixout`.
    **settings: As for `MixedParams.create`; ``axes="flax"`` asks the layers
      first, see `axes`, and goes by names otherwise.

  Returns:
    The graph definition; the mixed parameters, whose `params` are nested
    dicts; and the rest of the module's state.

  Raises:
    ValueError: As `MixedParams.create`.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> from flax import nnx
    >>> import gmixout_jax as gx
    >>> model = nnx.Linear(20, 3, rngs=nnx.Rngs(0))
    >>> graphdef, mixed, rest = gx.nnx.split(model, sampler="neuron", key=0)
    >>> tx = optax.adamw(1e-3)
    >>> opt_state = tx.init(mixed.trainable())
    >>> @jax.jit
    ... def step(mixed, opt_state, rest, x, y):
    ...   def loss(trainable):
    ...     model = gx.nnx.merge(graphdef, mixed, trainable, rest)
    ...     return jnp.mean((model(x) - y) ** 2)
    ...   grads = jax.grad(loss)(mixed.trainable())
    ...   return mixed.apply_gradients(tx, grads, opt_state)
    >>> x, y = jnp.ones((4, 20)), jnp.zeros((4, 3))
    >>> mixed, opt_state = step(mixed, opt_state, rest, x, y)
    >>> model = nnx.merge(graphdef, mixed.eval_params(), rest)
  """
  graphdef, params, rest = nnx.split(model, wrt, ...)
  mixed = MixedParams.create(
    nnx.to_pure_dict(params), key=key, **_by_layers(model, settings)
  )
  return graphdef, mixed, rest


def merge(graphdef: Any, mixed: MixedParams, trainable: Any, rest: Any) -> Any:
  """Merges a module, with gradients that flow to `trainable`.

  Args:
    graphdef: From `split`.
    mixed: The mixed parameters.
    trainable: As `mixed.trainable` returns it; traced by `jax.grad`.
    rest: From `split`. Its variables are copied: read what the module changed
      in them from the returned module, as by
      ``nnx.state(model, nnx.BatchStat)``.

  Returns:
    The module, to be used inside the loss.

  Raises:
    ValueError: As `MixedParams.inject`.
  """
  taps, params = mixed._tapped(mixed._begun(), trainable)
  model = nnx.merge(graphdef, params, rest, copy=True)
  put_taps(model, taps)
  return model


class MixedOptimizer(nnx.Pytree):
  """An optimizer of a module's mixed parameters, from packed gradients.

  It is used like `flax.nnx.Optimizer`, but computes the gradients itself, so
  that they come out packed. The model keeps the training weights; this object
  holds the rest of `MixedParams` and the optimizer's state.

  To accumulate gradients, add them up before `update`, or wrap `tx` in
  `optax.MultiSteps`.

  Example:
    >>> import jax.numpy as jnp, optax
    >>> from flax import nnx
    >>> import gmixout_jax as gx
    >>> model = nnx.Linear(20, 3, rngs=nnx.Rngs(0))
    >>> optimizer = gx.nnx.MixedOptimizer(model, optax.adamw(1e-3), key=0)
    >>> @nnx.jit
    ... def step(model, optimizer, x, y):
    ...   loss = lambda model: jnp.mean((model(x) - y) ** 2)
    ...   value, grads = optimizer.value_and_grad(loss)(model)
    ...   optimizer.update(model, grads)
    ...   return value
    >>> value = step(model, optimizer, jnp.ones((4, 20)), jnp.zeros((4, 3)))
    >>> eval_model = optimizer.eval_model(model)

  Attributes:
    tx: The Optax transformation, or `FusedAdamW`.
    wrt: What the parameters of a model are.
    mix: Key, count and anchors: `MixedParams` without the weights.
    opt_state: State of `tx`.
  """

  @takes_settings
  def __init__(
    self,
    model: Any,
    tx: optax.GradientTransformation | FusedAdamW,
    *,
    wrt: nnx.filterlib.Filter = nnx.Param,
    key: jax.Array | int,
    **settings: Unpack[MixSettings],
  ):
    """Wraps the parameters of a model.

    Args:
      model: An NNX module. It is read, not changed.
      tx: The optimizer of packed residuals and of leaves that are not mixed.
      wrt: What its parameters are.
      key: As for `gmixout`.
      **settings: As for `split`.

    Raises:
      ValueError: As `MixedParams.create`.
    """
    params = nnx_state.as_dict(nnx.state(model, wrt))
    mixed = MixedParams.create(params, key=key, **_by_layers(model, settings))
    self.tx = tx
    self.wrt = wrt
    self.mix = nnx.data(
      nnx_state.variables(dataclasses.replace(mixed, params=None))
    )
    self.opt_state = nnx.data(nnx_state.variables(tx.init(mixed.trainable())))

  def value_and_grad(
    self, loss: Callable[..., Any], *, has_aux: bool = False
  ) -> Callable[..., tuple[Any, Any]]:
    """Like `flax.nnx.value_and_grad`, for the first argument of `loss`.

    Args:
      loss: A function of the model and anything else.
      has_aux: Whether it returns a pair of the loss and auxiliary data.

    Returns:
      A function of the same arguments. It returns what `loss` returns, and the
      packed gradients. Any argument may be or hold an NNX object
      (`flax.nnx.Rngs`, metrics, a second module); in graph mode they may share
      variables with the model, whose gradients then sum over all uses. Changes
      that the loss makes to them and to the model's other state (batch
      statistics, random keys) are kept.
    """

    def of(model: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
      params = nnx.state(model, self.wrt)
      mixed = self._mixed(params)
      begun = mixed._begun().at_zero

      def of_trainable(trainable: Any, model: Any, args: Any, kwargs: Any):
        before = nnx.to_pure_dict(nnx.state(model, self.wrt))
        taps, weights = mixed._tapped(begun, trainable)
        nnx.update(model, weights)
        put_taps(model, taps)
        result = loss(model, *args, **kwargs)
        take_taps(model)
        nnx.update(model, before)
        return result

      return nnx.value_and_grad(of_trainable, has_aux=has_aux)(
        mixed._trainable(begun), model, args, kwargs
      )

    return of

  def update(self, model: Any, grads: Any, **extra_args: Any) -> None:
    """Takes one step, in place.

    Args:
      model: With the training weights at which the gradients were taken.
      grads: From `value_and_grad`.
      **extra_args: For the `update` of an Optax `tx`.

    Raises:
      ValueError: As `MixedParams.apply_gradients`.
    """
    mixed = self._mixed(nnx.state(model, self.wrt))
    mixed, opt_state = mixed.apply_gradients(
      self.tx, grads, nnx.as_pure(self.opt_state), **extra_args
    )
    nnx.update(model, mixed.params)
    nnx_state.assign(self.mix, dataclasses.replace(mixed, params=None))
    nnx_state.assign(self.opt_state, opt_state)

  def eval_model(self, model: Any) -> Any:
    """A copy of the model with the evaluation weights."""
    graphdef, params, rest = nnx.split(model, self.wrt, ...)
    mixed = self._mixed(params)
    return nnx.merge(graphdef, mixed.eval_params(), rest, copy=True)

  def _mixed(self, params: Any) -> MixedParams:
    mix = nnx.as_pure(self.mix)
    return dataclasses.replace(mix, params=nnx.to_pure_dict(params))


def _by_layers(model: Any, settings: MixSettings) -> MixSettings:
  """The settings, with what layers say of axes in place of names."""
  if settings.get("axes", "flax") != "flax":
    return settings
  return {**settings, "axes": axes(model)}
