"""The inner optimizer, and what a redraw of the mask does to its moments."""

import dataclasses
from collections.abc import Container
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

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

  Attributes:
    transformation: The optimizer.
    moments: "carry" runs it once over all leaves. "reset" runs it apart on
      mixed and on other leaves, as their step counts part ways.
  """

  transformation: optax.GradientTransformationExtraArgs
  moments: Moments

  def init(
    self, treedef: Any, residuals: list[Any], mixed: Container[int]
  ) -> Any:
    """State for the leaves of a tree; `mixed` holds positions among them.

    Raises:
      ValueError: If moments are to restart and the optimizer, made for a tree
        of one structure, does not show which parts of its state they are.
    """
    if self.moments == "carry":
      return self.transformation.init(treedef.unflatten(residuals))
    try:
      self.transformation.init(_Params())  # pyright: ignore[reportArgumentType]
    except Exception as error:
      raise ValueError(
        "moments='reset' needs an inner optimizer for any tree, to find its"
        " moments by; this one is masked or partitioned by a tree or a function"
        f" of keys ({error}). Use moments='carry', or put optax.partition or"
        " optax.masked around gmixout."
      ) from error
    return RestartedState(
      *map(self.transformation.init, _split(treedef, residuals, mixed))
    )

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
    """One step, before which moments that are not carried `restart`.

    Returns:
      The update of each leaf and the new state.
    """
    if self.moments == "carry":
      steps, state = self.transformation.update(
        treedef.unflatten(gradients),
        state,
        treedef.unflatten(residuals),
        **extra_args,
      )
      return treedef.flatten_up_to(steps), state
    assert isinstance(state, RestartedState)
    parts = _split(treedef, residuals, mixed)
    fresh = self.transformation.init(parts[0])
    restarted = restart_moments(
      self.transformation, state.mixed, fresh, restart
    )
    (ours, mixed_state), (theirs, dense_state) = (
      self.transformation.update(part_gradients, part_state, part, **extra_args)
      for part_gradients, part_state, part in zip(
        _split(treedef, gradients, mixed),
        (restarted, state.dense),
        parts,
        strict=True,
      )
    )
    steps = [
      our if i in mixed else their
      for i, (our, their) in enumerate(
        zip(
          treedef.flatten_up_to(ours),
          treedef.flatten_up_to(theirs),
          strict=True,
        )
      )
    ]
    return steps, RestartedState(mixed_state, dense_state)


def restart_moments(
  transformation: optax.GradientTransformation,
  state: Any,
  fresh: Any,
  when: jax.Array,
) -> Any:
  """Sets moments back to their first values, together with their step counts.

  A count that stands beside moments corrects their bias (Adam's) and restarts
  with them; with the old count, the first steps after a restart would be up to
  ``1/√(1−β₂)`` times too long. A count that stands alone drives a schedule
  (learning rate) and goes on.

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
    children, treedef = _one_level(marked)
    if treedef is None:
      return old
    beside_moments = any(isinstance(child, _Params) for child in children)
    walked = []
    for child, o, n in zip(
      children,
      treedef.flatten_up_to(old),
      treedef.flatten_up_to(new),
      strict=True,
    ):
      is_moment = isinstance(child, _Params)
      is_count = beside_moments and _one_level(child)[1] is None
      walked.append(
        restart(o, n) if is_moment or is_count else walk(child, o, n)
      )
    return treedef.unflatten(walked)

  # optax.tree.map_params finds parameters in a state the same way, but shows
  # each leaf alone, and here a count must know what it stands beside.
  return walk(transformation.init(_Params()), state, fresh)  # pyright: ignore[reportArgumentType]


@jax.tree_util.register_pytree_node_class
class _Params:
  """Stands for the parameters in an optimizer state; a node without leaves."""

  def tree_flatten(self) -> tuple[tuple, None]:
    return (), None

  @classmethod
  def tree_unflatten(cls, aux: None, children: tuple) -> "_Params":
    del aux, children
    return cls()


def _one_level(node: Any) -> tuple[list[Any], Any]:
  """Children of a pytree node and its one-level structure; None for a leaf."""
  children, treedef = jax.tree.flatten(node, is_leaf=lambda x: x is not node)
  return children, None if jax.tree_util.treedef_is_leaf(treedef) else treedef


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
