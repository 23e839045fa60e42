"""One optimizer step of a whole tree of weights, but for the optimizer.

`gmixout` receives dense gradients, `MixedParams` packed ones. What stands
around the optimizer is the same and lives here: `begin` finds the masks and
residuals of a step, `finish` turns the optimizer's updates of the residuals
into changes of the live weights and ends an episode that is due.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct

from gmixout_jax._core import resampling, samplers
from gmixout_jax._core.mixed_leaf import Memory, MixedLeaf, Step
from gmixout_jax._core.settings import MixSpec


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
      off the weights: all with ``residual="keep"`` and, packed, those narrower
      than float32. `Unmixed` for other leaves.
    scheduled: Current episode and its end if `resample_every` is a schedule;
      else None.
    spec: Static description of the mix (pytree metadata).
  """

  count: jax.Array
  key: jax.Array
  anchor_decay: jax.Array
  anchor: optax.Params
  learned: optax.Params
  scheduled: resampling.Scheduled | None
  spec: MixSpec = struct.field(pytree_node=False)

  @classmethod
  def of(
    cls,
    params: optax.Params,
    spec: MixSpec,
    /,
    *,
    key: Any,
    anchor_decay: Any,
    **others: Any,
  ) -> Self:
    """The state before the first step; `others` are fields of a subclass."""
    leaves, treedef = jax.tree.flatten(params)
    places = [
      optax.MaskedNode() if label == "frozen" else Unmixed()
      for label in spec.labels(params)
    ]
    mixes = spec.mixed_leaves(params)
    zeros = {i: mix.init(leaves[i]) for i, mix in mixes.items()}
    zero = jnp.zeros((), jnp.int32)
    return cls(
      count=zero,
      key=jnp.array(key),
      anchor_decay=spec.decay(zero, anchor_decay),
      **_memory_trees(treedef, places, zeros),
      scheduled=resampling.first_schedule(spec.resample_every),
      spec=spec,
      **others,
    )


class Begun(NamedTuple):
  """A step that has begun. Lists follow the leaves of the parameters.

  Attributes:
    treedef: Structure of the parameters.
    leaves: Live weights before the step.
    residuals: Δ of the mixed leaves; the others as they are.
    mixes: Arithmetic of the mixed leaves, by position.
    steps: Their masks, by position.
    memories: Their memory, by position, with an anchor that is read off.
    episode: Where the step stands in its episode.
    anchor_decay: λ, scalar.
    count_after: Steps taken once it ends, int32 scalar.
  """

  treedef: Any
  leaves: list[Any]
  residuals: list[Any]
  mixes: dict[int, MixedLeaf]
  steps: dict[int, Step]
  memories: dict[int, Memory]
  episode: resampling.Episode
  anchor_decay: jax.Array
  count_after: jax.Array


def begin(
  state: MixState,
  params: optax.Params,
  anchor_decay: Any,
  stepped: bool | jax.Array = True,
) -> Begun:
  """Finds masks, anchors and residuals of the step that follows `state`.

  Args:
    state: What is remembered.
    params: The live weights.
    anchor_decay: λ, unless the state follows a schedule.
    stepped: Whether the optimizer takes this step. If not, as between the
      steps of `optax.MultiSteps`, it is not counted and ends no episode.
  """
  spec = state.spec
  episode = resampling.locate(state.count, spec.resample_every, state.scheduled)
  episode = episode._replace(ends=episode.ends & stepped)
  count = jnp.where(stepped, optax.safe_increment(state.count), state.count)
  decay = spec.decay(episode.number, anchor_decay)
  leaves, treedef = jax.tree.flatten(params)
  mixes = spec.mixed_leaves(params)
  residuals, before = list(leaves), memories(treedef, state)
  steps = _draw_steps(mixes, leaves, state.key, episode, decay)
  for i, mix in mixes.items():
    residuals[i], before[i] = mix.begin(leaves[i], before[i], steps[i])
  return Begun(
    treedef=treedef,
    leaves=leaves,
    residuals=residuals,
    mixes=mixes,
    steps=steps,
    memories=before,
    episode=episode,
    anchor_decay=decay,
    count_after=count,
  )


def _draw_steps(
  mixes: dict[int, MixedLeaf],
  leaves: list[Any],
  key: jax.Array,
  episode: resampling.Episode,
  anchor_decay: jax.Array,
) -> dict[int, Step]:
  """What each mixed leaf needs to know about a step, by position."""
  paths = [mix.path for mix in mixes.values()]
  now = samplers.leaf_keys(key, episode.number, paths)
  following = samplers.leaf_keys(key, episode.number + episode.ends, paths)
  return {
    i: Step(
      indices=mix.layout.draw(now[n], leaves[i]),
      redraw=functools.partial(mix.layout.draw, following[n], leaves[i]),
      episode=episode,
      anchor_decay=anchor_decay,
    )
    for n, (i, mix) in enumerate(mixes.items())
  }


def finish[State: MixState](
  state: State, begun: Begun, updates: list[Any]
) -> tuple[list[Any], State]:
  """Ends the step that `begin` began.

  Args:
    state: The state that it began from.
    begun: What `begin` returned.
    updates: What the optimizer adds to each residual, and to each leaf that is
      not mixed; None leaves a leaf as it is.

  Returns:
    The change of each live leaf where there is an update, in the shape that
    the update has; and the state after the step. `MixedLeaf.dense` and
    `MixedLeaf.changed` tell what it means for a mixed leaf.
  """
  changes, after = list(updates), dict(begun.memories)
  for i, mix in begun.mixes.items():
    if updates[i] is not None:
      changes[i], after[i] = mix.finish(
        begun.leaves[i],
        begun.residuals[i],
        updates[i],
        begun.memories[i],
        begun.steps[i],
      )
  return changes, advance(state, begun, after)


def advance[State: MixState](
  state: State, begun: Begun, after: dict[int, Memory]
) -> State:
  """The state after the step that `begin` began, given the leaves' memory."""
  places = begun.treedef.flatten_up_to(state.anchor)
  return dataclasses.replace(
    state,
    count=begun.count_after,
    anchor_decay=begun.anchor_decay,
    **_memory_trees(begun.treedef, places, after),
    scheduled=resampling.advance(
      begun.episode, state.spec.resample_every, state.scheduled
    ),
  )


def memories(treedef: Any, state: MixState) -> dict[int, Memory]:
  """Memory of the mixed leaves by their position among the parameters."""
  anchors = treedef.flatten_up_to(state.anchor)
  learned = [
    None if isinstance(leaf, optax.MaskedNode) else leaf
    for leaf in treedef.flatten_up_to(state.learned)
  ]
  return {
    i: Memory(*parts)
    for i, parts in enumerate(zip(anchors, learned, strict=True))
    if not isinstance(parts[0], optax.MaskedNode)
  }


def _memory_trees(
  treedef: Any, places: list[Any], memories: dict[int, Memory]
) -> dict[str, Any]:
  """The state's `anchor` and `learned`: the inverse of `memories`.

  Args:
    treedef: Structure of the parameters.
    places: What stands for a leaf that has no memory, per leaf.
    memories: Memory of the mixed leaves by position.
  """
  anchors, learned = list(places), list[Any](Unmixed() for _ in places)
  for i, memory in memories.items():
    anchors[i] = memory.anchor
    if memory.learned is not None:
      learned[i] = memory.learned
  return {
    "anchor": treedef.unflatten(anchors),
    "learned": treedef.unflatten(learned),
  }
