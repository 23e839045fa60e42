"""GMixout as mixed parameters: only the weights themselves are dense.

`gmixout` takes the gradient of all weights and uses a tenth of it.
`MixedParams` takes that tenth alone: it differentiates the loss with respect to
packed residuals, so gradients, optimizer state and the all-reduce of
data-parallel training are as small as the mask.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, Self, Unpack

import jax
import jax.core
import jax.numpy as jnp
import optax
from flax import struct

from gmixout_jax import eval_params
from gmixout_jax._core import description, packed_grad
from gmixout_jax._core import step as steps
from gmixout_jax._core.held_weights import restart_held_weights
from gmixout_jax._core.inner_optimizer import wide_leaf, with_extra_args
from gmixout_jax._core.keys import raw_key
from gmixout_jax._core.multi_steps import has_stepped
from gmixout_jax._core.settings import MixSettings, Settings, takes_settings
from gmixout_jax.labels import named_leaves


class FusedOptimizer(Protocol):
  """An optimizer that steps weights, state and mix at once: `FusedAdamW`."""

  def init(self, trainable: Any) -> Any:
    """The optimizer's state."""
    ...

  def step(
    self, mixed: "MixedParams", grads: Any, opt_state: Any
  ) -> tuple["MixedParams", Any]:
    """Takes a step."""
    ...


@description.serialized
@struct.dataclass
class MixedParams(steps.MixState):
  """Parameters that train as under `gmixout`, from packed gradients.

  An immutable pytree, used like a Flax ``TrainState``: checkpoint it, donate
  it, carry it through a scan. One step with any Optax optimizer `tx` is:

      value, grads = mixed.value_and_grad(loss)(batch)  # loss(params, batch)
      mixed, opt_state = mixed.apply_gradients(tx, grads, opt_state)

  where ``opt_state = tx.init(mixed.trainable())``. At evaluation use
  `mixed.eval_params()`. With the same key, data and inner optimizer the weights
  follow those of ``gmixout(tx, ...)``; see there for the method. (With
  `optax.MultiSteps` as `tx`, those of ``MultiSteps(gmixout(...))``: an episode
  is k optimizer steps.) Jit the whole step and donate `mixed`, so that the
  weights are updated in place.

  The gradients are a tree like `trainable`: they may be averaged over devices,
  clipped, or summed over micro-batches. Loops that need the pieces have
  `inject`, which returns the weights with gradients that flow to `trainable`,
  and `apply_updates`, which adds the updates of an optimizer.

  Attributes:
    params: The training weights W, all of them, which the model computes with.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> import gmixout_jax as gx
    >>> params = {"kernel": jnp.ones((8, 40)), "bias": jnp.zeros(40)}
    >>> mixed = gx.MixedParams.create(params, key=0, resample_every=5)
    >>> tx = optax.adam(1e-2)
    >>> opt_state = tx.init(mixed.trainable())
    >>> loss = lambda p: jnp.mean((p["kernel"].sum(0) + p["bias"]) ** 2)
    >>> @jax.jit
    ... def step(mixed, opt_state):
    ...   value, grads = mixed.value_and_grad(loss)()
    ...   return mixed.apply_gradients(tx, grads, opt_state)
    >>> for _ in range(7):
    ...   mixed, opt_state = step(mixed, opt_state)
    >>> jax.tree.map(jnp.shape, mixed.trainable())
    {'bias': (40,), 'kernel': (8, 4)}
    >>> eval_params = mixed.eval_params()
  """

  params: Any

  @classmethod
  @takes_settings
  def create(
    cls, params: Any, *, key: jax.Array | int, **settings: Unpack[MixSettings]
  ) -> Self:
    """Wraps the weights to start from.

    Args:
      params: Any pytree of arrays; integer arrays are frozen. They are not
        copied: donating the result deletes them.
      key: As for `gmixout`.
      **settings: As for `gmixout`. `target` may also be rules that label every
        leaf "mixed", "dense" or "frozen", such as `VIT_RULES`, which replaces
        `optax.partition`. Frozen leaves cost only their own memory. With
        ``sampler="neuron"`` in a Flax module (`gmixout_jax.nnx`,
        `gmixout_jax.linen`) the backward pass skips the inputs that do not
        train, which saves work and memory, also with ``residual="keep"``.

    Raises:
      ValueError: If an argument is out of range, no leaf is mixed, or a leaf
        is too small to keep one entry. The message quotes the value.
      NotImplementedError: If `implementation` cannot run here; says why.
    """
    mix = Settings(**settings)
    if mix.moments != "carry":
      raise ValueError(
        "MixedParams leaves the optimizer's state to you, so it takes"
        f" moments='carry' only, got {mix.moments!r}; gmixout has 'reset'."
      )
    for path, leaf in named_leaves(params):
      if not hasattr(leaf, "dtype"):
        raise ValueError(
          f"params must hold arrays, got {leaf!r} at the leaf {path!r}."
        )
    tree = steps.MixedTree.of(params, mix)
    return cls.of(tree, mix, key=raw_key(key), params=params)

  def value_and_grad(
    self, loss: Callable[..., Any], *, has_aux: bool = False
  ) -> Callable[..., tuple[Any, Any]]:
    """Like `jax.value_and_grad`, with packed gradients.

    Args:
      loss: (params, *args) → scalar, with weights like `params`.
      has_aux: Whether it returns a pair of the loss and auxiliary data.

    Returns:
      A function of the other arguments of `loss`. It returns what `loss`
      returns, and the gradients, a tree like `trainable`.

    Example:
      >>> import jax.numpy as jnp
      >>> import gmixout_jax as gx
      >>> mixed = gx.MixedParams.create({"kernel": jnp.ones((4, 20))}, key=0)
      >>> loss = lambda params, x: jnp.sum(x @ params["kernel"])
      >>> value, grads = mixed.value_and_grad(loss)(jnp.ones(4))
      >>> float(value), grads["kernel"].shape
      (80.0, (4, 2))
    """

    def of(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
      begun = self._begun().at_zero

      def of_trainable(trainable: Any) -> Any:
        _, weights = self._tapped(begun, trainable)
        return loss(weights, *args, **kwargs)

      return jax.value_and_grad(of_trainable, has_aux=has_aux)(
        self._trainable(begun)
      )

    return of

  def apply_gradients(
    self,
    tx: optax.GradientTransformation | FusedOptimizer,
    grads: Any,
    opt_state: Any,
    **extra_args: Any,
  ) -> tuple[Self, Any]:
    """Takes one optimizer step.

    Args:
      tx: Any Optax optimizer, or `FusedAdamW`. With `optax.MultiSteps` only
        its optimizer steps count.
      grads: From `value_and_grad`, or any tree like `trainable`.
      opt_state: From ``tx.init(mixed.trainable())``, or from the last call.
      **extra_args: For the `update` of an Optax optimizer.

    Returns:
      The weights and the optimizer's state after the step.

    Raises:
      ValueError: If `grads` does not fit, the optimizer holds weights that
        gmixout does not know how to restart (see `gmixout`), or `FusedAdamW`
        is given extra arguments.
    """
    if not (hasattr(tx, "update") or hasattr(tx, "step")):
      raise ValueError(
        f"tx must be an Optax optimizer or FusedAdamW, got {tx!r}."
      )
    if not hasattr(tx, "update"):
      if extra_args:
        raise ValueError(
          f"extra arguments go to the update of an Optax optimizer, got"
          f" {', '.join(extra_args)} for {type(tx).__name__}, which takes none."
        )
      return tx.step(self, grads, opt_state)  # pyright: ignore
    transformation = with_extra_args(tx)
    begun = self._begun()
    trainable = self._trainable(begun)
    self._leaves_of(begun, grads, "grads")
    before = opt_state
    if self.settings.empties_residuals:
      before = restart_held_weights(
        transformation,
        opt_state,
        trainable,
        self._packed(
          begun, [i in begun.tree.mixes for i in range(len(begun.residuals))]
        ),
        begun.episode.starts,
      )
    try:
      updates, opt_state = transformation.update(
        grads, before, trainable, **extra_args
      )
    except (TypeError, ValueError) as error:
      wanted = jax.eval_shape(transformation.init, trainable)
      if jax.tree.map(jnp.shape, wanted) == jax.tree.map(jnp.shape, before):
        raise
      raise ValueError(
        "opt_state does not fit what trains: make it by"
        f" tx.init(mixed.trainable()), not of the parameters ({error})."
      ) from error
    stepped = has_stepped(begun, before, opt_state)
    return self.apply_updates(updates, stepped=stepped), opt_state

  def trainable(self) -> Any:
    """What the optimizer trains, a pytree like `params`.

    Returns:
      For a mixed leaf Δ, packed, of the shape of `anchor`; for a dense leaf its
      weights; both in float32 or wider. For a frozen leaf `optax.MaskedNode`,
      which has no leaves. Decoupled weight decay on Δ pulls towards the anchor.
    """
    return self._trainable(self._begun())

  def inject(self, trainable: Any) -> Any:
    """The weights for the model, with gradients that flow to `trainable`.

    Args:
      trainable: As `trainable` returns it; perhaps traced by `jax.grad`. Of
        the mixed leaves only the gradient is used: `params` holds the values.

    Returns:
      A pytree like `params`.

    Raises:
      ValueError: If `trainable` does not fit.
    """
    _, weights = self._tapped(self._begun(), trainable)
    return weights

  def apply_updates(
    self, updates: Any, *, stepped: bool | jax.Array = True
  ) -> Self:
    """Adds an optimizer's updates, and ends an episode that is due.

    Args:
      updates: What `tx.update` returned, like `trainable`.
      stepped: Whether this is an optimizer step; perhaps traced. With
        `optax.MultiSteps` pass its `has_updated`.

    Returns:
      The weights after the step.

    Raises:
      ValueError: If `updates` does not fit.
    """
    begun = steps.only_if(self._begun(), self, stepped)
    tree = begun.tree
    changes, mixed = steps.finish(
      self,
      begun,
      [
        None if isinstance(update, optax.MaskedNode) else update
        for update in self._leaves_of(begun, updates, "updates")
      ],
    )
    leaves = list(tree.leaves)
    for i, change in enumerate(changes):
      if i in tree.mixes:
        indices = begun.steps[i].indices
        leaves[i] = tree.mixes[i].changed(leaves[i], change, indices)
      elif change is not None:
        leaves[i] = optax.apply_updates(
          leaves[i], change.astype(leaves[i].dtype)
        )
    return dataclasses.replace(mixed, params=tree.treedef.unflatten(leaves))

  def eval_params(self) -> Any:
    """The evaluation weights; see `gmixout_eval_params`."""
    return eval_params.gmixout_eval_params(self, self.params)

  def masks(self) -> Any:
    """The masks of the current episode; see `gmixout_masks`."""
    return eval_params.gmixout_masks(self, self.params)

  def _begun(self) -> steps.Begun:
    """Masks and residuals of the next step: drawn once in a trace.

    They are kept where they are valid as long as this object is: while its
    arrays are traced, and if no trace inside made them.
    """
    begun = self.__dict__.get("_kept")
    if begun is None:
      begun = steps.begin(self, self.params, self.anchor_decay)
      made = _traces((begun.residuals, begun.steps, begun.memories))
      if made and made <= _traces(self):
        object.__setattr__(self, "_kept", begun)
    return begun

  def _trainable(self, begun: steps.Begun) -> Any:
    return self._packed(begun, [wide_leaf(leaf) for leaf in begun.residuals])

  def _packed(self, begun: steps.Begun, leaves: list[Any]) -> Any:
    """A tree like `trainable`, without what is frozen."""
    packed = begun.tree.packed
    return packed.unflatten(
      [
        place if type(place) is optax.MaskedNode else leaf
        for place, leaf in zip(
          packed.flatten_up_to(self.anchor), leaves, strict=True
        )
      ]
    )

  def _tapped(
    self, begun: steps.Begun, trainable: Any
  ) -> tuple[dict[str, packed_grad.Tap], Any]:
    """The tap of each mixed leaf by its path, and `inject`'s weights."""
    leaves = self._leaves_of(begun, trainable)
    taps = packed_grad.taps(begun, leaves)
    return taps, packed_grad.tapped_weights(begun, taps, leaves)

  def _leaves_of(
    self, begun: steps.Begun, tree: Any, name: str = "trainable"
  ) -> list[Any]:
    """Leaves of a tree like `trainable`, one per leaf of the parameters.

    Args:
      begun: The step.
      tree: The tree.
      name: What the message of an error calls it.

    Raises:
      ValueError: If it does not have that structure.
    """
    packed = begun.tree.packed
    try:
      leaves = packed.flatten_up_to(tree)
    except ValueError as error:
      raise ValueError(
        f"{name} must have the structure that trainable() returns, got"
        f" {jax.tree.structure(tree)}: {error}"
      ) from error
    anchors = packed.flatten_up_to(self.anchor)
    for (path, leaf), anchor, own in zip(
      named_leaves(self.params), anchors, leaves, strict=True
    ):
      if type(anchor) is optax.MaskedNode:
        if jax.tree.leaves(own):
          raise ValueError(
            f"{name} must hold optax.MaskedNode() for the leaf {path!r}, which"
            f" is frozen, got {own!r}."
          )
        continue
      wanted = leaf if isinstance(anchor, optax.MaskedNode) else anchor
      shape = getattr(own, "shape", None)
      if shape != wanted.shape:
        raise ValueError(
          f"{name} must hold an array of shape {wanted.shape} for the leaf"
          f" {path!r}, got {own!r}."
          if shape is None
          else f"{name} must hold an array of shape {wanted.shape} for the leaf"
          f" {path!r}, got one of shape {shape}."
        )
    return leaves


def _traces(tree: Any) -> set[Any]:
  """The traces that the arrays of a tree belong to; none of concrete ones."""
  return {
    getattr(leaf, "_trace", None)
    for leaf in jax.tree.leaves(tree)
    if isinstance(leaf, jax.core.Tracer)
  }
