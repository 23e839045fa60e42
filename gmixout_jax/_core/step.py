"""One optimizer step of a whole tree of weights, but for the optimizer.

`gmixout` receives dense gradients, `MixedParams` packed ones. What stands
around the optimizer is the same and lives here: `begin` finds the masks and
residuals of a step, `finish` turns the optimizer's updates of the residuals
into changes of the training weights and ends an episode that is due.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from gmixout_jax._core import boxes, resampling, samplers
from gmixout_jax._core.mixed_leaf import (
  AnchorState,
  LeafStep,
  MixedLeaf,
  is_low_precision,
)
from gmixout_jax._core.settings import Settings


class Unmixed(optax.MaskedNode):
  """Stands in `MixState.anchor` for a leaf that trains but is not mixed.

  A leaf that does not train at all has a plain `optax.MaskedNode` there.
  """


@struct.dataclass
class MixState:
  """What mixed weights carry from step to step, beside themselves.

  Attributes:
    count: Optimizer steps taken, int32 scalar.
    key: Raw data of the masks' key, uint32 ``[2]``. It never advances.
    anchor_decay: λ of the latest step's episode, float scalar.
    anchor: Like the parameters: the anchor of each mixed leaf in float32 or
      wider, packed at the active entries (dense with ``residual="keep"``);
      `Unmixed` for other leaves. Stale between the last step of an episode
      and the first of the next: read it through an accessor.
    learned: Like `anchor`, A + Δ of the leaves whose residual cannot be read
      off the weights: all with ``residual="keep"`` and, packed, those of
      low precision. `Unmixed` for other leaves.
    scheduled: Current episode and its end if `resample_every` is a schedule;
      else None.
    settings: Static description of the mix (pytree metadata).
  """

  count: jax.Array
  key: jax.Array
  anchor_decay: jax.Array
  anchor: optax.Params
  learned: optax.Params
  scheduled: resampling.Scheduled | None
  settings: Settings = struct.field(pytree_node=False)

  @classmethod
  def of(
    cls,
    tree: "MixedTree",
    settings: Settings,
    /,
    *,
    key: Any,
    **others: Any,
  ) -> Self:
    """The state before the first step; `others` are fields of a subclass."""
    places = [
      optax.MaskedNode() if label == "frozen" else Unmixed()
      for label in tree.labels
    ]
    zeros = {i: mix.init(tree.leaves[i]) for i, mix in tree.mixes.items()}
    zero = jnp.zeros((), jnp.int32)
    # A copy, as of the key: who donates the state keeps what he gave.
    decay = jnp.array(settings.decay(zero, settings.anchor_decay))
    return cls(
      count=zero,
      key=jnp.array(key),
      anchor_decay=decay,
      **_memory_trees(tree, places, zeros),
      scheduled=resampling.first_schedule(settings.resample_every),
      settings=settings.static(),
      **others,
    )


class MixedTree(NamedTuple):
  """The parameters, and how each leaf is mixed. Lists follow their leaves.

  Attributes:
    leaves: The training weights.
    treedef: Structure of the parameters.
    packed: Structure of a tree whose mixed leaves are residuals. It differs in
      what boxes of parameters say of their axes.
    labels: What becomes of each leaf: "mixed", "dense" or "frozen".
    mixes: Arithmetic of the mixed leaves, by position.
  """

  leaves: list[Any]
  treedef: Any
  packed: Any
  labels: list[str]
  mixes: dict[int, MixedLeaf]

  @classmethod
  def of(cls, params: optax.Params, settings: Settings) -> Self:
    """Reads the parameters.

    Raises:
      ValueError: As `Settings.mixed_leaves`.
    """
    leaves, treedef = jax.tree.flatten(params)
    # As JAX holds them: NumPy's have 64 bits.
    leaves = [
      jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf
      for leaf in leaves
    ]
    labels, mixes = settings.mixed_leaves(params)
    layouts = {
      i: mix.packed_layout
      for i, mix in mixes.items()
      if mix.packed_layout is not None
    }
    packed = boxes.packed_structure(params, layouts)
    return cls(leaves, treedef, packed, labels, mixes)

  @property
  def residuals(self) -> list[Any]:
    """Δ = 0 of the mixed leaves; the others as they are."""
    return [
      self.mixes[i].zero_residual(leaf) if i in self.mixes else leaf
      for i, leaf in enumerate(self.leaves)
    ]


class Begun(NamedTuple):
  """A step that has begun. Lists follow the leaves of the parameters.

  Attributes:
    tree: The parameters before the step.
    residuals: Δ of the mixed leaves; the others as they are.
    steps: What each mixed leaf must know about the step, by position.
    memories: Their memory, by position, with an anchor that is read off.
    episode: Where the step stands in its episode.
    anchor_decay: λ, scalar.
    count_after: Steps taken once it ends, int32 scalar.
  """

  tree: MixedTree
  residuals: list[Any]
  steps: dict[int, LeafStep]
  memories: dict[int, AnchorState]
  episode: resampling.Episode
  anchor_decay: jax.Array
  count_after: jax.Array

  @property
  def at_zero(self) -> "Begun":
    """The same with Δ = 0, to differentiate at: no forward pass reads Δ."""
    return self._replace(residuals=self.tree.residuals)


def begin(state: MixState, params: optax.Params, anchor_decay: Any) -> Begun:
  """Finds masks, anchors and residuals of the step that follows `state`.

  Args:
    state: What is remembered.
    params: The training weights.
    anchor_decay: λ, unless the state follows a schedule.

  Raises:
    ValueError: If the state was made for other weights or settings; it names
      the leaf.
  """
  settings = state.settings
  episode = resampling.locate(
    state.count, settings.resample_every, state.scheduled
  )
  decay = settings.decay(episode.number, anchor_decay)
  tree = MixedTree.of(params, settings)
  residuals, before = list(tree.leaves), memories(tree, state)
  steps = leaf_steps(tree.mixes, tree.leaves, state.key, episode, decay)
  for i, mix in tree.mixes.items():
    check_memory(mix, tree.leaves[i], before.get(i))
    check_precision(mix, tree.leaves[i], before[i])
    residuals[i], before[i] = mix.begin(tree.leaves[i], before[i], steps[i])
  return Begun(
    tree=tree,
    residuals=residuals,
    steps=steps,
    memories=before,
    episode=episode,
    anchor_decay=decay,
    count_after=jnp.asarray(optax.safe_increment(state.count)),
  )


def only_if(begun: Begun, state: MixState, stepped: bool | jax.Array) -> Begun:
  """A step that counts, and may end an episode, only if it was `stepped`.

  Between the steps of `optax.MultiSteps` it is not.
  """
  if stepped is True:
    return begun
  episode = begun.episode._replace(ends=begun.episode.ends & stepped)
  return begun._replace(
    episode=episode,
    count_after=jnp.where(stepped, begun.count_after, state.count),
    steps={
      i: step._replace(episode=episode) for i, step in begun.steps.items()
    },
  )


def leaf_steps(
  mixes: dict[int, MixedLeaf],
  leaves: list[Any],
  key: jax.Array,
  episode: resampling.Episode,
  anchor_decay: jax.Array,
) -> dict[int, LeafStep]:
  """What each mixed leaf needs to know about a step, by position."""
  paths = [mix.path for mix in mixes.values()]
  layouts = [mix.layout for mix in mixes.values()]
  likes = [leaves[i] for i in mixes]

  def draw(number: jax.Array) -> list[jax.Array]:
    keys = samplers.leaf_keys(key, number, paths)
    return samplers.draw_all(layouts, keys, likes)

  following = _Following(
    lambda ends: draw(episode.number + jnp.asarray(ends, jnp.int32))
  )
  return {
    i: LeafStep(
      indices=indices,
      redraw=functools.partial(following.of_leaf, n),
      episode=episode,
      anchor_decay=anchor_decay,
    )
    for n, (i, indices) in enumerate(
      zip(mixes, draw(episode.number), strict=True)
    )
  }


class _Following:
  """The masks of the next step: drawn if one is asked for, then all at once."""

  def __init__(self, draw: Callable[[jax.Array], list[jax.Array]]):
    self._draw = draw
    self._drawn: list[jax.Array] | None = None

  def of_leaf(self, place: int, ends: jax.Array) -> jax.Array:
    """The mask of one leaf, given whether the episode ends."""
    if self._drawn is None:
      self._drawn = self._draw(ends)
    return self._drawn[place]


def finish[State: MixState](
  state: State, begun: Begun, updates: list[Any]
) -> tuple[list[Any], State]:
  """Ends the step that `begin` began.

  Args:
    state: The state that it began from.
    begun: What `begin` returned.
    updates: What the optimizer adds to each residual, and to each leaf that is
      not mixed; None leaves a leaf unchanged.

  Returns:
    The change of each leaf where there is an update, in the shape that the
    update has; and the state after the step. `MixedLeaf.dense` and
    `MixedLeaf.changed` tell what it means for a mixed leaf.
  """
  changes, after = list(updates), dict(begun.memories)
  for i, mix in begun.tree.mixes.items():
    if updates[i] is not None:
      changes[i], after[i] = mix.finish(
        begun.tree.leaves[i],
        begun.residuals[i],
        updates[i],
        begun.memories[i],
        begun.steps[i],
      )
  return changes, advance(state, begun, after)


def advance[State: MixState](
  state: State, begun: Begun, after: dict[int, AnchorState]
) -> State:
  """The state after the step that `begin` began, given the leaves' memory."""
  places = begun.tree.packed.flatten_up_to(state.anchor)
  return dataclasses.replace(
    state,
    count=begun.count_after,
    anchor_decay=begun.anchor_decay,
    **_memory_trees(begun.tree, places, after),
    scheduled=resampling.advance(
      begun.episode, state.settings.resample_every, state.scheduled
    ),
  )


def memories(tree: MixedTree, state: MixState) -> dict[int, AnchorState]:
  """Memory of the mixed leaves by their position among the parameters."""
  anchors = tree.packed.flatten_up_to(state.anchor)
  learned = [
    None if isinstance(leaf, optax.MaskedNode) else leaf
    for leaf in tree.packed.flatten_up_to(state.learned)
  ]
  return {
    i: AnchorState(*parts)
    for i, parts in enumerate(zip(anchors, learned, strict=True))
    if not isinstance(parts[0], optax.MaskedNode)
  }


def check_settings(
  state: MixState, params: optax.Params, settings: Settings
) -> None:
  """Raises ValueError unless a state was made with a transformation's settings.

  A step goes by those that the state carries, and would not heed the others.
  """
  name = settings.difference(state.settings)
  if name is None:
    return
  _, mixes = settings.mixed_leaves(params)
  if not mixes:
    return
  path = next(iter(mixes.values())).path
  wanted, found = (getattr(of, name) for of in (settings, state.settings))
  raise ValueError(
    f"leaf {path!r} is to be mixed with {name}={wanted!r}, but the state"
    f" was made with {name}={found!r}: make it by the init of this"
    " transformation, or with the same settings."
  )


def check_memory(mix: MixedLeaf, leaf: Any, memory: AnchorState | None) -> None:
  """Raises ValueError unless a state's memory is that of a mixed leaf."""
  layout = mix.packed_layout
  wanted = leaf.shape if layout is None else layout.packed_shape
  found = "none" if memory is None else f"one of shape {memory.anchor.shape}"
  if memory is None or memory.anchor.shape != wanted:
    raise ValueError(
      f"leaf {mix.path!r} of shape {leaf.shape} needs an anchor of shape"
      f" {wanted}, but the state holds {found}: it is of another model, or was"
      " made with other settings (sparsity, sampler, target, axes, residual)."
    )


def check_precision(mix: MixedLeaf, leaf: Any, memory: AnchorState) -> None:
  """Raises ValueError where Δ would be read off weights that round it away."""
  if memory.learned is None and is_low_precision(leaf):
    raise ValueError(
      f"leaf {mix.path!r} is {leaf.dtype}, but the state was made for weights"
      f" of {memory.anchor.dtype}, and off rounded ones it would lose what they"
      f" learn: make it by the init of the {leaf.dtype} weights, or keep the"
      f" weights in {memory.anchor.dtype} and cast them in the loss."
    )


def _memory_trees(
  tree: MixedTree, places: list[Any], memories: dict[int, AnchorState]
) -> dict[str, Any]:
  """The state's `anchor` and `learned`: the inverse of `memories`.

  Args:
    tree: The parameters.
    places: What stands for a leaf that has no memory, per leaf.
    memories: Memory of the mixed leaves by position.
  """
  anchors, learned = list(places), list[Any](Unmixed() for _ in places)
  for i, memory in memories.items():
    anchors[i] = memory.anchor
    if memory.learned is not None:
      learned[i] = memory.learned
  return {
    "anchor": tree.packed.unflatten(anchors),
    "learned": tree.packed.unflatten(learned),
  }
