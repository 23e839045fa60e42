"""GMixout as a wrapper of parameters: only the weights themselves are dense.

`gmixout` asks for the gradient of all weights and uses a tenth. `MixedParams`
asks for that tenth: the loss is differentiated with respect to packed
residuals, so gradients, the optimizer's state and what data-parallel training
has to reduce are as small as the mask.
"""

import dataclasses
from typing import Any, Required, Self, TypedDict

import jax
import optax
from flax import struct

from gmixout_jax import eval_params
from gmixout_jax._core import resampling
from gmixout_jax._core import step as mixing
from gmixout_jax._core.packed_grad import Tap
from gmixout_jax._core.settings import MixSpec, Residual, raw_key
from gmixout_jax.labels import Rules, Target, named_leaves
from pallas_kernels.dispatch import Implementation


class MixSettings(TypedDict, total=False):
  """The settings of `MixedParams.create`, for what hands them on to it."""

  key: Required[jax.Array | int]
  sparsity: float
  anchor_decay: float | resampling.Schedule
  resample_every: resampling.Period
  sampler: str
  target: Target | Rules
  residual: Residual
  rescale: bool
  implementation: Implementation | None


@struct.dataclass
class MixedParams(mixing.MixState):
  """Parameters that `gmixout` would train likewise, from packed gradients.

  An immutable pytree, to be used like a Flax ``TrainState``: checkpoint it,
  donate it, carry it through a scan. One step, with any Optax optimizer `tx`:

      trainable = mixed.trainable()  # Δ, packed; opt_state = tx.init(it)
      loss = lambda trainable: model_loss(mixed.inject(trainable), batch)
      grads = jax.grad(loss)(trainable)  # packed as well
      updates, opt_state = tx.update(grads, opt_state, trainable)
      mixed = mixed.apply_updates(updates)

  and at evaluation `mixed.eval_params()`. Key, data and inner optimizer being
  the same, the weights follow those of ``gmixout(tx, ...)``, see there for the
  method. Jit the whole step and donate `mixed`, so that the weights change in
  place.

  To accumulate gradients over parts of a batch, add up `grads` before the
  update; or wrap `tx` in `optax.MultiSteps` and tell `apply_updates` when it
  has stepped.

  Attributes:
    params: The live weights W, all of them, as the model computes with them.

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
    ...   trainable = mixed.trainable()
    ...   grads = jax.grad(lambda t: loss(mixed.inject(t)))(trainable)
    ...   updates, opt_state = tx.update(grads, opt_state, trainable)
    ...   return mixed.apply_updates(updates), opt_state
    >>> for _ in range(7):
    ...   mixed, opt_state = step(mixed, opt_state)
    >>> jax.tree.map(jnp.shape, mixed.trainable())
    {'bias': (40,), 'kernel': (8, 4)}
    >>> deployed = mixed.eval_params()
  """

  params: Any

  @classmethod
  def create(
    cls,
    params: Any,
    *,
    key: jax.Array | int,
    sparsity: float = 0.9,
    anchor_decay: float | resampling.Schedule = 0.3,
    resample_every: resampling.Period = 10,
    sampler: str = "stratified",
    target: Target | Rules = None,
    residual: Residual = "reset",
    rescale: bool = True,
    implementation: Implementation | None = None,
  ) -> Self:
    """Wraps the weights to start from.

    Args:
      params: Any pytree of arrays. They are held, not copied: if the result is
        donated, they are gone.
      key: As for `gmixout`, like all arguments below.
      sparsity: Fraction of entries held at the anchor, in [0, 1).
      anchor_decay: λ in [0, 1], or a schedule episode → λ.
      resample_every: k >= 1, optimizer steps per episode; a schedule; or None.
      sampler: "stratified", "uniform", "bernoulli" or "neuron". With "neuron"
        and layers that are handed their taps (`gmixout_jax.nnx`,
        `gmixout_jax.linen`), the backward pass saves the work and the memory
        of the rows that do not train.
      target: Which leaves are mixed, the others train densely; or, in place of
        `optax.partition`, rules that label every leaf "mixed", "dense" or
        "frozen", such as `VIT_RULES`. Frozen leaves cost nothing but their
        own memory.
      residual: "keep" is Mixout (with ``anchor_decay=1, resample_every=1``).
        Its residual and gradient are dense, but the work that "neuron" saves
        is saved.
      rescale: Whether the forward pass divides Δ by s.
      implementation: As for `gmixout`.

    Raises:
      ValueError: If an argument is out of range, no leaf is mixed, or a leaf
        is too small to keep one entry. The message quotes the value.
      NotImplementedError: If `implementation` cannot run here; says why.
    """
    spec = MixSpec.create(
      sparsity=sparsity,
      sampler=sampler,
      resample_every=resample_every,
      target=target,
      anchor_decay=anchor_decay,
      residual=residual,
      rescale=rescale,
      implementation=implementation,
    )
    return cls.of(
      params, spec, key=raw_key(key), anchor_decay=anchor_decay, params=params
    )

  def trainable(self) -> Any:
    """What the optimizer trains, a pytree like `params`.

    Returns:
      Δ for a mixed leaf, in float32 or wider: packed, of the shape of
      `anchor`. A leaf that is not mixed as it is; `optax.MaskedNode`, which
      has no leaves, for one that is frozen. Decoupled weight decay on Δ pulls
      towards the anchor.
    """
    step = self._begin()
    return step.treedef.unflatten(
      [
        optax.MaskedNode() if label == "frozen" else residual
        for label, residual in zip(
          self.spec.labels(self.params), step.residuals, strict=True
        )
      ]
    )

  def taps(self, trainable: Any) -> dict[str, Tap]:
    """The tap of every mixed leaf by its '/'-joined path.

    For layers that put taps into their products; `inject` is enough otherwise.

    Args:
      trainable: As `trainable` returns it; perhaps traced by `jax.grad`.

    Raises:
      ValueError: If it does not have that structure.
    """
    step = self._begin()
    residuals = self.trainable_leaves(trainable)
    paths = [path for path, _ in named_leaves(self.params)]
    return {
      paths[i]: Tap(residuals[i], step.steps[i].indices, mix)
      for i, mix in step.mixes.items()
    }

  def inject(self, trainable: Any) -> Any:
    """The weights for the model, with taps that send gradients to `trainable`.

    Args:
      trainable: As `trainable` returns it. Of the mixed leaves only the
        gradient is taken: their values are in `params` already.

    Returns:
      A pytree like `params`.

    Raises:
      ValueError: If `trainable` does not fit.
    """
    return self.inject_taps(self.taps(trainable), trainable)

  def inject_taps(self, taps: dict[str, Tap], trainable: Any) -> Any:
    """`inject`, with the taps that `taps` has made of the same argument."""
    leaves = [
      taps[path].weights(leaf)
      if path in taps
      else (leaf if isinstance(own, optax.MaskedNode) else own)
      for (path, leaf), own in zip(
        named_leaves(self.params),
        self.trainable_leaves(trainable),
        strict=True,
      )
    ]
    return jax.tree.unflatten(jax.tree.structure(self.params), leaves)

  def apply_updates(
    self, updates: Any, *, stepped: bool | jax.Array = True
  ) -> Self:
    """Adds an optimizer's updates, and ends an episode that is due.

    Args:
      updates: What `tx.update` returned, like `trainable`.
      stepped: Whether this is an optimizer step. False, perhaps traced, counts
        none: for `optax.MultiSteps`, whose `has_updated` tells.

    Returns:
      The weights after the step.

    Raises:
      ValueError: If `updates` does not fit.
    """
    step = self._begin(stepped)
    moves = [
      None if isinstance(move, optax.MaskedNode) else move
      for move in self.trainable_leaves(updates, "updates")
    ]
    changes, mixed = mixing.finish(self, step, moves)
    leaves = list(step.leaves)
    for i, change in enumerate(changes):
      if i in step.mixes:
        indices = step.steps[i].indices
        leaves[i] = step.mixes[i].changed(leaves[i], change, indices)
      elif change is not None:
        leaves[i] = (leaves[i] + change).astype(leaves[i].dtype)
    return dataclasses.replace(mixed, params=step.treedef.unflatten(leaves))

  def eval_params(self) -> Any:
    """The weights to evaluate and deploy; see `gmixout_eval_params`."""
    return eval_params.gmixout_eval_params(self, self.params)

  def masks(self) -> Any:
    """What the current episode trains; see `gmixout_masks`."""
    return eval_params.gmixout_masks(self, self.params)

  def trainable_leaves(self, tree: Any, name: str = "trainable") -> list[Any]:
    """Leaves of a tree like `trainable`, one per leaf of the parameters.

    Args:
      tree: The tree.
      name: What the message of an error calls it.

    Raises:
      ValueError: If it does not have that structure.
    """
    treedef = jax.tree.structure(self.params)
    try:
      leaves = treedef.flatten_up_to(tree)
    except ValueError as error:
      raise ValueError(
        f"{name} must have the structure that trainable() returns, got"
        f" {jax.tree.structure(tree)}: {error}"
      ) from error
    anchors = treedef.flatten_up_to(self.anchor)
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

  def _begin(self, stepped: bool | jax.Array = True) -> mixing.Begun:
    return mixing.begin(self, self.params, self.anchor_decay, stepped)
