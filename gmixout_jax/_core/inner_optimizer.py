"""The inner optimizer, and what a redraw of the mask does to its moments."""

import dataclasses
from collections.abc import Container
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmixout_jax._core.held_weights import (
  RESTARTS,
  held_leaves,
  one_level,
  restart_held_weights,
)
from gmixout_jax._core.mixed_leaf import accumulator_dtype

Moments = Literal["carry", "reset"]


class RestartedState(NamedTuple):
  """State of an `InnerOptimizer` whose moments restart.

  Attributes:
    mixed: State over the mixed leaves; its moments restart.
    dense: State over the others; its moments go on.
  """

  mixed: Any
  dense: Any


@dataclasses.dataclass(frozen=True)
class InnerOptimizer:
  """Runs an optimizer over residuals (mixed leaves) and other leaves.

  It sees all floating-point leaves in float32 or wider, as residuals are. Many
  optimizers derive the dtype of a scalar, such as an estimate of the learning
  rate, from the narrowest leaf: beside float32 residuals a bfloat16 bias would
  make that scalar change its dtype at the first step, which no scan allows.
  Rounding it back was worse: in float16 sums of squared gradients overflow, and
  `optax.contrib.mechanize` refuses dtypes that differ.

  Attributes:
    transformation: The optimizer.
    moments: "carry" runs it once over all leaves. "reset" runs it apart on
      mixed and on other leaves, as their step counts part ways.
    empties: Whether a redraw empties the residuals, so that weights which the
      optimizer holds of them restart. Not with ``residual="keep"``, nor where
      masks are never redrawn.
  """

  transformation: optax.GradientTransformationExtraArgs
  moments: Moments
  empties: bool = True

  def init(
    self, treedef: Any, residuals: list[Any], mixed: Container[int]
  ) -> Any:
    """State for the leaves of a tree; `mixed` holds positions among them.

    Raises:
      ValueError: If the optimizer holds weights in a way that is not known; or
        if moments are to restart and the optimizer, made for a tree of one
        structure, does not show which parts of its state they are.
    """
    leaves = [wide_leaf(leaf) for leaf in residuals]
    init = self.transformation.init
    if self.moments == "carry":
      params = treedef.unflatten(leaves)
      state = init(params)
      if self.empties:
        held_leaves(init, params, [i in mixed for i in range(len(leaves))])
      return state
    try:
      init(_Params())  # pyright: ignore[reportArgumentType]
    except Exception as error:
      raise ValueError(
        "moments='reset' needs an inner optimizer for any tree, to find its"
        " moments by; this one is masked or partitioned by a tree or a function"
        f" of keys ({error}). Use moments='carry', or put optax.partition or"
        " optax.masked around gmixout."
      ) from error
    ours, theirs = _split(treedef, leaves, mixed)
    state = RestartedState(init(ours), init(theirs))
    if self.empties:
      held_leaves(init, ours, [True] * len(jax.tree.leaves(ours)))
    return state

  def update(
    self,
    treedef: Any,
    gradients: list[Any],
    state: Any,
    residuals: list[Any],
    mixed: Container[int],
    restart: jax.Array,
    extra_args: dict[str, Any],
  ) -> tuple[list[Any], Any]:
    """One step, before which what a redraw restarts does so if `restart`.

    Returns:
      The update of each leaf, in the dtype of its residual, and the new state.

    Raises:
      ValueError: If the optimizer holds weights in a way that is not known.
    """
    gradients, leaves = (
      [wide_leaf(x) for x in xs] for xs in (gradients, residuals)
    )
    if self.moments == "carry":
      tree = treedef.unflatten(leaves)
      if self.empties:
        flags = treedef.unflatten([i in mixed for i in range(len(leaves))])
        state = restart_held_weights(
          self.transformation, state, tree, flags, restart
        )
      updates, state = self.transformation.update(
        treedef.unflatten(gradients), state, tree, **extra_args
      )
      updates = treedef.flatten_up_to(updates)
    else:
      updates, state = self._update_apart(
        treedef, gradients, state, leaves, mixed, restart, extra_args
      )
    return [
      update if leaf is wide else _like(update, leaf)
      for update, leaf, wide in zip(updates, residuals, leaves, strict=True)
    ], state

  def _update_apart(
    self,
    treedef: Any,
    gradients: list[Any],
    state: RestartedState,
    leaves: list[Any],
    mixed: Container[int],
    restart: jax.Array,
    extra_args: dict[str, Any],
  ) -> tuple[list[Any], RestartedState]:
    """`update` of mixed leaves, whose moments restart, and of the others."""
    tx = self.transformation
    parts = _split(treedef, leaves, mixed)
    restarted = restart_moments(tx, state.mixed, tx.init(parts[0]), restart)
    if self.empties:
      all_of_them = jax.tree.map(lambda _: True, parts[0])
      restarted = restart_held_weights(
        tx, restarted, parts[0], all_of_them, restart
      )
    (ours, mixed_state), (theirs, dense_state) = (
      tx.update(part_gradients, part_state, part, **extra_args)
      for part_gradients, part_state, part in zip(
        _split(treedef, gradients, mixed),
        (restarted, state.dense),
        parts,
        strict=True,
      )
    )
    updates = [
      our if i in mixed else their
      for i, (our, their) in enumerate(
        zip(
          treedef.flatten_up_to(ours),
          treedef.flatten_up_to(theirs),
          strict=True,
        )
      )
    ]
    return updates, RestartedState(mixed_state, dense_state)


def with_extra_args(tx: Any) -> optax.GradientTransformationExtraArgs:
  """The optimizer, with an `update` that takes extra arguments.

  `optax.with_extra_args_support` takes a bare `optax.MultiSteps` for one that
  takes no extra arguments, where it hands them on.
  """
  if isinstance(tx, optax.MultiSteps):
    return optax.GradientTransformationExtraArgs(tx.init, tx.update)  # pyright: ignore[reportArgumentType]
  return optax.with_extra_args_support(tx)


def restart_moments(
  transformation: optax.GradientTransformation,
  state: Any,
  fresh: Any,
  when: jax.Array,
) -> Any:
  """Sets moments back to their first values, together with their step counts.

  An integer that stands beside moments is the count that corrects their bias
  (Adam's) and restarts with them; with the old count, the first steps after a
  restart would be up to ``1/√(1−β₂)`` times too long. A count that stands alone
  drives a schedule (learning rate) and goes on, and so does a number that is no
  integer: it estimates something. `held_weights.RESTARTS` names what follows
  other rules.

  Args:
    transformation: The optimizer whose state it is.
    state: Its state.
    fresh: Its state as its `init` makes it.
    when: Whether to restart, bool scalar.

  Returns:
    A state like `state`.

  >>> adam = optax.chain(
  ...   optax.scale_by_adam(), optax.scale_by_schedule(lambda count: 1.0)
  ... )
  >>> fresh = adam.init(jnp.zeros(2))
  >>> _, state = adam.update(jnp.ones(2), fresh)
  >>> moments, schedule = restart_moments(adam, state, fresh, jnp.array(True))
  >>> int(moments.count), int(schedule.count)
  (0, 1)
  """

  def restart(old: Any, new: Any) -> Any:
    return jax.tree.map(lambda o, n: jnp.where(when, n, o), old, new)

  def walk(marked: Any, old: Any, new: Any) -> Any:
    treedef = _structure(marked)
    if treedef is None:
      return old
    named = [(name, child) for name, _, child in one_level(marked)]
    rules = RESTARTS.get(type(marked))
    moments = rules.moments if rules else ()
    others = set(rules.names()) - set(moments) if rules else set()
    beside_moments = any(
      isinstance(child, _Params) and name not in others for name, child in named
    )
    walked = []
    for (name, child), o, n in zip(
      named,
      treedef.flatten_up_to(old),
      treedef.flatten_up_to(new),
      strict=True,
    ):
      if name in others:
        walked.append(o)
      elif (
        isinstance(child, _Params)
        or name in moments
        or (beside_moments and _is_count(child, o))
      ):
        walked.append(restart(o, n))
      else:
        walked.append(walk(child, o, n))
    return treedef.unflatten(walked)

  # optax.tree.map_params finds parameters in a state the same way, but shows
  # each leaf alone, and here a count must know what it stands beside.
  return walk(transformation.init(_Params()), state, fresh)  # pyright: ignore[reportArgumentType]


def _is_count(marked: Any, leaf: Any) -> bool:
  return _structure(marked) is None and jnp.issubdtype(
    jnp.result_type(leaf), jnp.integer
  )


def wide_leaf(leaf: Any) -> Any:
  """A floating-point array, or the shape of one, in float32 or wider.

  All else is unchanged.
  """
  dtype = getattr(leaf, "dtype", None)
  if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
    return leaf
  wide = accumulator_dtype(leaf)
  if isinstance(leaf, jax.ShapeDtypeStruct):
    return leaf.update(dtype=wide)
  return leaf if dtype == wide else leaf.astype(wide)


def _like(update: Any, leaf: Any) -> Any:
  """An update in the dtype of its leaf, if there is one."""
  return update.astype(leaf.dtype) if hasattr(update, "astype") else update


@jax.tree_util.register_pytree_node_class
class _Params:
  """Stands for the parameters in an optimizer state; a node without leaves."""

  def tree_flatten(self) -> tuple[tuple, None]:
    return (), None

  @classmethod
  def tree_unflatten(cls, aux: None, children: tuple) -> "_Params":
    del aux, children
    return cls()


def _structure(node: Any) -> Any:
  """Structure of a pytree node down to its children; None for a leaf."""
  treedef = jax.tree.structure(node, is_leaf=lambda x: x is not node)
  is_leaf = jax.tree_util.treedef_is_leaf(treedef) and treedef.num_leaves
  return None if is_leaf else treedef


def _split(treedef: Any, leaves: list[Any], mixed: Container[int]) -> list[Any]:
  """The tree of mixed leaves and the tree of the others, as optax.masked's."""
  return [
    treedef.unflatten(
      [
        leaf if (i in mixed) == side else optax.MaskedNode()
        for i, leaf in enumerate(leaves)
      ]
    )
    for side in (True, False)
  ]
