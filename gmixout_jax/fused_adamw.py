"""AdamW of mixed parameters, fused with the mix."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gmixout_jax._core import samplers
from gmixout_jax._core import step as steps
from gmixout_jax._core.inner_optimizer import wide_leaf
from gmixout_jax._core.kernel_layout import KernelStratified
from gmixout_jax._core.layouts import PerRow
from gmixout_jax._core.mixed_leaf import (
  AnchorState,
  MixedLeaf,
  ResetResidual,
  accumulator_dtype,
)
from gmixout_jax.mixed_params import MixedParams
from pallas_kernels.packed_step.api import packed_step
from pallas_kernels.packed_step.arithmetic import PackedAdamState


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedAdamW:
  """`optax.adamw` for `MixedParams`, in one pass over the active entries.

  With an Optax optimizer, `MixedParams.apply_gradients` passes over the active
  entries several times: for residuals, moments and weights. With this one it
  reads gradient, weight, anchor and moments once and writes back what changed,
  in place if `mixed` and `opt_state` are donated. On a GPU this is one
  `pallas_kernels.packed_step` per leaf.

  Arithmetic, defaults and state are those of `optax.adamw`, so a run may switch
  between the two. Moments are carried over a redraw. Leaves that are not mixed
  are updated by `optax.adamw` itself.

  Attributes:
    learning_rate: η, or an Optax schedule.
    b1: β₁.
    b2: β₂.
    eps: ε.
    weight_decay: Decoupled; it pulls a mixed leaf towards its anchor.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> import gmixout_jax as gx
    >>> mixed = gx.MixedParams.create({"kernel": jnp.ones((8, 40))}, key=0)
    >>> adamw = gx.FusedAdamW(learning_rate=1e-3)
    >>> opt_state = adamw.init(mixed.trainable())
    >>> @jax.jit
    ... def step(mixed, opt_state):
    ...   loss = lambda params: jnp.sum(params["kernel"] ** 2)
    ...   value, grads = mixed.value_and_grad(loss)()
    ...   return mixed.apply_gradients(adamw, grads, opt_state)
    >>> mixed, opt_state = step(mixed, opt_state)
    >>> round(float(mixed.params["kernel"].min()), 4)  # 1 - η/s
    0.99
  """

  learning_rate: optax.ScalarOrSchedule
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  weight_decay: float = 1e-4

  def __post_init__(self):
    for name, high in (("b1", 1), ("b2", 1), ("eps", math.inf)):
      value = getattr(self, name)
      if isinstance(value, int | float) and not 0 <= value < high:
        raise ValueError(f"{name} must be in [0, {high}), got {value!r}.")

  def init(self, trainable: Any) -> optax.OptState:
    """The state of `optax.adamw` for what `MixedParams.trainable` returns."""
    return self._adamw.init(trainable)

  def step(
    self, mixed: MixedParams, grads: Any, opt_state: Any
  ) -> tuple[MixedParams, Any]:
    """Takes an optimizer step.

    Args:
      mixed: Created with the "stratified" sampler and ``residual="reset"``.
      grads: Like ``mixed.trainable()``. To accumulate, add them up first.
      opt_state: From `init`, or from `optax.adamw`.

    Returns:
      The weights and the optimizer's state after the step.

    Raises:
      ValueError: If `mixed` is of another kind, or `grads` or `opt_state` does
        not fit.
    """
    begun = mixed._begun()
    tree = begun.tree
    self._check_state(opt_state, mixed._trainable(begun))
    gradients = mixed._leaves_of(begun, grads, "grads")
    weights, moments, state = self._step_dense(begun, gradients, opt_state)
    rate = self.learning_rate
    if callable(rate):
      rate = rate(opt_state[-1].count)
    paths = [mix.path for mix in tree.mixes.values()]
    keys = samplers.leaf_keys(mixed.key, begun.episode.number, paths)
    memories = steps.memories(tree, mixed)
    for key, (i, mix) in zip(keys, tree.mixes.items(), strict=True):
      (anchor, learned), (mu, nu) = memories[i], moments[i]
      layout = _layout(mix, tree.leaves[i])
      rows, after = packed_step(
        layout.rows_of(tree.leaves[i]),
        gradients[i],
        PackedAdamState(anchor, mu, nu, learned),
        key,
        count=state[0].count,
        learning_rate=rate,
        b1=self.b1,
        b2=self.b2,
        eps=self.eps,
        weight_decay=self.weight_decay,
        anchor_decay=begun.anchor_decay,
        starts=begun.episode.starts,
        ends=begun.episode.ends,
        kept=mix.layout.kept,
        divisor=mix.divisor,
        packed_gradient=True,
        implementation=(
          layout.implementation
          if isinstance(layout, KernelStratified)
          else "xla"
        ),
      )
      weights[i] = rows.reshape(tree.leaves[i].shape)
      moments[i] = (after.mu, after.nu)
      memories[i] = AnchorState(after.anchor, after.learned)
    mus, nus = map(tree.packed.unflatten, zip(*moments, strict=True))
    mixed = dataclasses.replace(
      steps.advance(mixed, begun, memories),
      params=tree.treedef.unflatten(weights),
    )
    return mixed, (state[0]._replace(mu=mus, nu=nus), *state[1:])

  def _check_state(self, opt_state: Any, trainable: Any) -> None:
    wanted = jax.eval_shape(self.init, trainable)
    structures = jax.tree.structure(wanted), jax.tree.structure(opt_state)
    if structures[0] != structures[1]:
      rate = "a schedule" if callable(self.learning_rate) else "a constant"
      raise ValueError(
        "opt_state must be that of optax.adamw, with"
        f" {rate} as learning rate, for mixed.trainable(): make it by the init"
        f" of this FusedAdamW; got {structures[1]}."
      )

  @property
  def _adamw(self) -> optax.GradientTransformation:
    # Not dataclasses.asdict, which would copy a schedule and all it holds.
    return optax.adamw(
      self.learning_rate,
      b1=self.b1,
      b2=self.b2,
      eps=self.eps,
      weight_decay=self.weight_decay,
    )

  def _step_dense(
    self, begun: steps.Begun, gradients: list[Any], opt_state: Any
  ) -> tuple[list[Any], list[Any], Any]:
    """Steps the leaves that train but are not mixed.

    Returns:
      The training weights, the pairs of moments, and the optimizer's state.
      What belongs to mixed leaves is still that of the step before; the state's
      moments are without them.
    """
    tree, adam = begun.tree, opt_state[0]
    treedef = tree.packed
    hidden = [
      i in tree.mixes or isinstance(gradient, optax.MaskedNode)
      for i, gradient in enumerate(gradients)
    ]

    def unhidden(leaves: list[Any]) -> Any:
      shown = [
        optax.MaskedNode() if hide else leaf
        for leaf, hide in zip(leaves, hidden, strict=True)
      ]
      return treedef.unflatten(shown)

    mus, nus = map(treedef.flatten_up_to, (adam.mu, adam.nu))
    adam = adam._replace(mu=unhidden(mus), nu=unhidden(nus))
    state: Any = (adam, *opt_state[1:])
    # Optax's own bias correction is refused where promotion is strict.
    with jax.numpy_dtype_promotion("standard"):
      updates, state = self._adamw.update(
        unhidden(gradients),
        state,
        unhidden([wide_leaf(leaf) for leaf in begun.residuals]),
      )
    updates, stepped_mus, stepped_nus = map(
      treedef.flatten_up_to, (updates, state[0].mu, state[0].nu)
    )
    weights, moments = list(tree.leaves), list(zip(mus, nus, strict=True))
    for i, hide in enumerate(hidden):
      if not hide:
        weights[i] = optax.apply_updates(
          weights[i], updates[i].astype(weights[i].dtype)
        )
        moments[i] = (stepped_mus[i], stepped_nus[i])
    return weights, moments, state


def _layout(mix: MixedLeaf, leaf: jax.Array) -> PerRow:
  """The layout of a leaf that `packed_step` can step.

  Raises:
    ValueError: If it cannot.
  """
  layout = mix.layout
  if not isinstance(mix, ResetResidual) or not isinstance(layout, PerRow):
    raise ValueError(
      "FusedAdamW needs sampler='stratified' and residual='reset', got the"
      f" leaf {mix.path!r} as {type(mix).__name__} of"
      f" {type(layout).__name__}; use optax.adamw."
    )
  if accumulator_dtype(leaf) != jnp.float32:
    raise ValueError(
      "FusedAdamW computes in float32, got the leaf"
      f" {mix.path!r} of dtype {leaf.dtype}; use optax.adamw."
    )
  return layout
