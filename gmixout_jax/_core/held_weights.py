"""Weights in the state of an inner optimizer: what a redraw does to them.

A redraw empties the residual Δ that an inner optimizer trains, and gives its
entries to other weights. Where the optimizer keeps weights of its own beside
Δ (the sequence z of schedule-free, the point that a distance is measured
from), those restart with it: a fresh entry would else be updated by what an old
one has learned.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gmixout_jax._core.value_sources import sources_of_outputs


@dataclasses.dataclass(frozen=True)
class Restarts:
  """What becomes of the fields of a state when masks are redrawn.

  Fields that are not listed hold moments, or states that are searched likewise.

  Attributes:
    weights: Trees like the parameters that hold weights, or say where they
      are: their mixed leaves restart. The first is a copy of the parameters
      as `init` makes it; the others follow it leaf by leaf.
    average: What averages or relates those weights, for all leaves together:
      restarts whole.
    moments: Sums over all leaves that go with the moments: they restart where
      moments do, under ``moments="reset"``.
    kept: What never restarts: estimates of scale with the sums behind them,
      and counts that only drive a schedule.
  """

  weights: tuple[str, ...] = ()
  average: tuple[str, ...] = ()
  moments: tuple[str, ...] = ()
  kept: tuple[str, ...] = ()

  def names(self) -> tuple[str, ...]:
    """All listed fields."""
    return self.weights + self.average + self.moments + self.kept


RESTARTS: dict[type, Restarts] = {
  # x is read off y and z. Were z emptied and its weight kept, x would hardly
  # move for as many steps as there have been; weight 0 makes z the new x.
  optax.contrib.ScheduleFreeState: Restarts(
    weights=("z",),
    average=("weight_sum",),
    kept=("b1", "step_count", "max_lr"),
  ),
  # These two compute where a weight is from where it began and from a sum of
  # gradients, so an old sum would change a fresh entry.
  optax.contrib.COCOBState: Restarts(
    weights=("init_particles", "cumulative_gradients")
  ),
  optax.contrib.MadgradState: Restarts(weights=("x0", "s")),
  optax.contrib.MechanicState: Restarts(
    weights=("x0",), kept=("count", "r", "m", "v", "s")
  ),
  # `grad_sum` is the denominator of the estimate: it stays with the numerator.
  optax.contrib.ProdigyState: Restarts(
    weights=("params0",), kept=("grad_sum", "estim_lr", "numerator_weighted")
  ),
  # Holds no weights. Its estimate divides by the second moments as well, so its
  # sums restart where these do; the estimate itself, their maximum, stays.
  optax.contrib.DAdaptAdamWState: Restarts(
    moments=("numerator_weighted",), kept=("estim_lr",)
  ),
  optax.contrib.DoGState: Restarts(
    weights=("init_params",),
    kept=("is_init_step", "max_dist", "sum_sq_norm_grads"),
  ),
  optax.contrib.DoWGState: Restarts(
    weights=("init_params",), kept=("estim_sq_dist", "weighted_sq_norm_grads")
  ),
  # Optax does not show the class of this one.
  type(optax.scale_by_distance_over_gradients().init(())): Restarts(
    weights=("init_params",), kept=("max_dist", "grad_sum_of_squares")
  ),
  # Averages of losses and of ⟨g, x⟩, corrected by the count of the momentum.
  optax.contrib.MomoState: Restarts(moments=("barf", "gamma"), kept=("lb",)),
  optax.contrib.MomoAdamState: Restarts(
    moments=("barf", "gamma"), kept=("lb",)
  ),
  optax.contrib.SAMState: Restarts(
    weights=("cache",), kept=("steps_since_sync",)
  ),
  # Differences of weights and of gradients over a redraw mean nothing, and its
  # memory weighs all leaves together.
  optax.ScaleByLBFGSState: Restarts(
    average=(
      "count",
      "params",
      "updates",
      "diff_params_memory",
      "diff_updates_memory",
      "weights_memory",
    )
  ),
  # Reported, and never used to update a weight.
  optax.transforms.SnapshotState: Restarts(kept=("measurement",)),
}


def register_held_weights(
  state_class: type,
  *,
  weights: tuple[str, ...] = (),
  average: tuple[str, ...] = (),
  moments: tuple[str, ...] = (),
  kept: tuple[str, ...] = (),
) -> None:
  """Says what a redraw of the masks restarts in an optimizer's state.

  `gmixout` knows the optimizers of Optax. Another one whose state starts with a
  copy of the parameters, or with numbers that depend on their values, is
  refused as inner optimizer until its fields are named here.

  Args:
    state_class: Class of the state, or of a part of it: a NamedTuple, or a
      dataclass that is a pytree.
    weights: Fields like the parameters that hold weights, or that tell where
      they are. Their mixed leaves restart with every mask, as `init` makes
      them for a residual of zeros; other leaves stay. The first is a copy of
      the parameters.
    average: Fields that belong to those weights and restart whole with every
      mask, such as the sum of the weights of an average.
    moments: Scalars that restart with the moments, under
      ``moments="reset"``. Moments themselves, fields like the parameters, do
      so without being named, and so do integer counts beside them.
    kept: Fields that never restart: estimates of scale, and the sums that
      they are read off.

  Raises:
    ValueError: If the class has no field of a name given here.

  Example:
    >>> from typing import Any, NamedTuple
    >>> import jax, optax
    >>> import gmixout_jax as gx
    >>> class PullState(NamedTuple):
    ...   start: Any
    >>> pull = optax.GradientTransformation(
    ...   init=PullState,
    ...   update=lambda updates, state, params: (
    ...     jax.tree.map(
    ...       lambda g, w, start: -0.1 * (g + w - start),
    ...       updates, params, state.start,
    ...     ),
    ...     state,
    ...   ),
    ... )
    >>> gx.register_held_weights(PullState, weights=("start",))
    >>> tx = gx.gmixout(pull, key=0)
    >>> _ = tx.init({"kernel": jax.numpy.ones((8, 40))})
  """
  restarts = Restarts(
    *(tuple(names) for names in (weights, average, moments, kept))
  )
  fields = getattr(state_class, "_fields", None)
  if fields is None:
    if not dataclasses.is_dataclass(state_class):
      raise ValueError(
        f"state_class must be a NamedTuple or a dataclass, got {state_class!r}."
      )
    fields = tuple(field.name for field in dataclasses.fields(state_class))
  for name in restarts.names():
    if name not in fields:
      raise ValueError(
        f"{state_class.__name__} has the fields {tuple(fields)}, got {name!r}."
      )
  RESTARTS[state_class] = restarts


def restart_held_weights(
  tx: optax.GradientTransformation,
  opt_state: Any,
  fresh: Any,
  mixed: Any,
  when: jax.Array,
) -> Any:
  """Restarts the weights that an optimizer's state holds of mixed leaves.

  Traces `tx.init`, and adds nothing to a traced program where the state holds
  no weights.

  Args:
    tx: The optimizer.
    opt_state: Its state.
    fresh: What `tx.init` is given. Of mixed leaves only shape and dtype are
      taken, as their residual is zero after a redraw.
    mixed: A tree like `fresh` of bools: which leaves are mixed.
    when: Whether to restart, bool scalar.

  Returns:
    A state like `opt_state`.

  Raises:
    ValueError: If the state holds weights that `RESTARTS` does not know, or
      `opt_state` is not of `tx`.
  """
  flags = [bool(flag) for flag in jax.tree.leaves(mixed)]
  restarting = held_leaves(tx.init, fresh, flags)
  if not restarting:
    return opt_state
  leaves, treedef = jax.tree.flatten(fresh)
  init = lambda filled: jax.tree.leaves(tx.init(treedef.unflatten(filled)))
  zeroed = [
    jnp.zeros_like(leaf) if flag else leaf
    for leaf, flag in zip(leaves, flags, strict=True)
  ]
  new, marks = init(zeroed), None
  state, state_treedef = jax.tree.flatten(opt_state)
  if len(state) != len(new):
    raise ValueError(
      f"opt_state must have the {len(new)} arrays that the optimizer's init"
      f" makes, to find the weights that it holds, got {len(state)}."
    )
  for i, mark in restarting.items():
    here = when
    if mark is not None:
      # A leaf of many, such as the vector of optax.flatten: what `init` makes
      # of ones and zeros tells whose its entries are.
      marks = marks or init(
        [
          jnp.full_like(leaf, flag)
          for leaf, flag in zip(leaves, flags, strict=True)
        ]
      )
      here = when & (marks[mark] == 1)
    state[i] = jnp.where(here, jnp.asarray(new[i], state[i].dtype), state[i])
  return state_treedef.unflatten(state)


def held_leaves(
  init: Callable[[Any], Any], fresh: Any, mixed: list[bool]
) -> dict[int, int | None]:
  """Which leaves of an optimizer's state restart with every mask.

  Args:
    init: The optimizer's.
    fresh: What it is given; `jax.ShapeDtypeStruct` will do.
    mixed: Which leaves of `fresh` are mixed.

  Returns:
    Position of the leaf of the state → position of a leaf that is a copy of
    the parameters in the same layout, or None if all of the leaf restarts.

  Raises:
    ValueError: If the state holds weights that `RESTARTS` does not know.
  """
  try:
    treedef, sources = sources_of_outputs(init, fresh)
  except jax.errors.JAXTypeError as error:
    raise _refusal(
      f"its init computes with values outside of JAX ({error})"
    ) from error
  ours = frozenset(i for i, flag in enumerate(mixed) if flag)
  found, unknown = {}, []

  def walk(node: Any, where: str) -> None:
    restarts = RESTARTS.get(type(node))
    for name, key, child in one_level(node):
      if child is node:  # a leaf
        if sources[node] & ours:
          unknown.append(where)
      elif restarts is None or name not in restarts.names():
        walk(child, where + key)
      elif name in restarts.average:
        found.update((leaf, None) for leaf in jax.tree.leaves(child))
      elif name in restarts.weights:
        copies = jax.tree.leaves(getattr(node, restarts.weights[0]))
        for leaf, copy in zip(jax.tree.leaves(child), copies, strict=True):
          if sources[copy] & ours:
            found[leaf] = None if sources[copy] <= ours else copy

  # Positions stand for the leaves, so that a node tells which are its own.
  walk(treedef.unflatten(range(treedef.num_leaves)), "state")
  if unknown:
    raise _refusal(
      f"its init copies or measures the parameters in {', '.join(unknown[:3])}"
    )
  return found


def one_level(node: Any) -> Iterator[tuple[str | None, str, Any]]:
  """Name (if it has one), key and value of each child; a leaf is its own."""
  children, _ = jax.tree_util.tree_flatten_with_path(
    node, is_leaf=lambda x: x is not node
  )
  for path, child in children:
    name = getattr(path[0], "name", None) if path else None
    yield name, jax.tree_util.keystr(path), child


def _refusal(why: str) -> ValueError:
  return ValueError(
    "inner holds weights that gmixout does not know:"
    f" {why}. After a redraw they would update fresh entries by what old ones"
    " have learned. Either use an optimizer listed in"
    " docs/guides/optimizers.md, or let its state be a NamedTuple or a"
    " dataclass and say which of its fields restart with every mask:"
    " gmixout_jax.register_held_weights(StateClass, weights=(...))."
  )
