"""What a saved state says of its masks, and whether it can be gone on from.

Masks are drawn from key, episode and path, never saved. So a state that was
saved in mid-episode, whose anchors belong to the entries of one mask, is of use
only where that mask is drawn again: by the same sampler, in the same version,
with the same settings. Between two episodes nothing belongs to a mask.
"""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import optax
from flax import serialization

from gmixout_jax._core import resampling, samplers
from gmixout_jax._core.paths import named_leaves
from gmixout_jax._core.step import MixState

Description = dict[str, Any]

_FIELD = "description"

# Of an episode whose length follows a schedule, which is not saved itself.
_STEPS = "episode_steps"

# Version 0.1.0 saved none; it drew each sampler's first distribution.
_FIRST = 1


def describe(state: MixState) -> Description:
  """What decides which entries a mask has, and what anchors mean; JSON."""
  settings = state.settings
  every, scheduled = settings.resample_every, state.scheduled
  found = {
    "sampler": settings.sampler,
    "mask_distribution": samplers.MASK_DISTRIBUTION[settings.sampler],
    "sparsity": settings.sparsity,
    "resample_every": "a schedule" if callable(every) else every,
    "residual": settings.residual,
    "moments": settings.moments,
    "rescale": settings.rescale,
  }
  # Of states that are stacked, as `jax.vmap` makes them, it is not told.
  if callable(every) and scheduled and scheduled.episode.ndim == 0:
    found[_STEPS] = int(resampling.length(every, scheduled.episode))
  return found


def check_resumable(saved: Description | None, state: MixState) -> None:
  """Raises unless a state that was restored means what it did when saved.

  Args:
    saved: What `describe` said of it; None if it was saved by version 0.1.0.
    state: The state, with the arrays that were saved and the settings that it
      is to go on with. Its count is concrete.

  Raises:
    ValueError: If it is in mid-episode and of other settings, or of another
      mask distribution; it names the sampler and a leaf.
  """
  ours = describe(state)
  if saved is None:
    saved = ours | {"mask_distribution": _FIRST}
  saved = {_STEPS: ours.get(_STEPS)} | saved  # which not all versions told
  different = [name for name in ours if saved.get(name) != ours[name]]
  if not different or _between_episodes(saved, state):
    return
  name = different[0]
  raise ValueError(
    f"leaf {_first_mixed(state)!r} was saved in mid-episode, after"
    f" {int(state.count)} steps, by sampler {saved['sampler']!r}, and its mask"
    f" cannot be drawn again: {name} is {saved.get(name)!r} there and"
    f" {ours[name]!r} here. Resume a state that was saved at an episode's end,"
    " or go on with the settings and the version that saved this one."
  )


def serialized[State: type[MixState]](state_class: State) -> State:
  """Lets `flax.serialization` save the description, and check it."""
  names = [
    field.name
    for field in dataclasses.fields(state_class)
    if field.metadata.get("pytree_node", True)
  ]

  def to_state_dict(state: Any) -> dict[str, Any]:
    saved = {
      name: serialization.to_state_dict(getattr(state, name)) for name in names
    }
    text = json.dumps(describe(state)).encode()
    return saved | {_FIELD: np.frombuffer(text, np.uint8)}

  def from_state_dict(state: Any, saved: dict[str, Any]) -> Any:
    saved = dict(saved)
    text = saved.pop(_FIELD, None)
    missing = sorted(set(names) ^ saved.keys())
    if missing:
      raise ValueError(
        f"a saved {state_class.__name__} must have the fields {names}, and"
        f" {missing[0]!r} is missing or unknown."
      )
    described = None if text is None else json.loads(bytes(np.asarray(text)))
    _check_structure(state, saved, described)
    restored = dataclasses.replace(
      state,
      **{
        name: serialization.from_state_dict(
          getattr(state, name), saved[name], name=name
        )
        for name in names
      },
    )
    check_resumable(described, restored)
    return restored

  serialization.register_serialization_state(
    state_class, to_state_dict, from_state_dict, override=True
  )
  return state_class


def _check_structure(
  wanted: MixState, saved: dict[str, Any], described: Description | None
) -> None:
  """Raises ValueError unless the saved state has the parts that it should."""
  ours = _shapes(serialization.to_state_dict(wanted.anchor))
  theirs = _shapes(saved["anchor"])
  for path in sorted(ours.keys() ^ theirs.keys()):
    where = "here alone" if path in ours else "there alone"
    raise ValueError(
      f"leaf {path!r} is mixed {where}: the saved state is of another model, or"
      " was saved with another target."
    )
  for path, shape in ours.items():
    if theirs[path] != shape:
      raise ValueError(
        f"leaf {path!r} has an anchor of shape {theirs[path]} there and of"
        f" {shape} here: the state is of another model, or was saved with other"
        " settings (sparsity, sampler, target, axes, residual)."
      )
  learned = _shapes(serialization.to_state_dict(wanted.learned))
  for path in sorted(learned.keys() ^ _shapes(saved["learned"]).keys()):
    here, there = "float32", "low precision"
    if path in learned:
      here, there = there, here
    raise ValueError(
      f"leaf {path!r} is of {here} here, and the state was saved for weights of"
      f" {there}: restore it beside those, and then cast the weights."
    )
  if (wanted.scheduled is None) != (not saved["scheduled"]):
    here, there = "a schedule", "a number"
    if wanted.scheduled is None:
      here, there = there, here
    raise ValueError(
      f"resample_every is {here} here, and was {there} where the state was"
      " saved: go on with what saved it."
    )
  moments = wanted.settings.moments
  if described is not None and described.get("moments", moments) != moments:
    raise ValueError(
      f"leaf {min(ours)!r} was saved with moments={described['moments']!r},"
      f" whose state is another than that of moments={moments!r}."
    )


def _shapes(tree: Any, above: str = "") -> dict[str, tuple[int, ...]]:
  """Shapes of the arrays in a state dict, by their '/'-joined paths."""
  if not isinstance(tree, dict):
    return {above.removeprefix("/"): np.shape(tree)}
  found: dict[str, tuple[int, ...]] = {}
  for name, part in tree.items():
    found |= _shapes(part, f"{above}/{name}")
  return found


def _between_episodes(saved: Description, state: MixState) -> bool:
  """Whether an episode has ended by the saved settings, and one begins here."""
  every, count = saved["resample_every"], int(state.count)
  if count == 0:
    return True
  ended = not isinstance(every, int) or count % every == 0
  if state.scheduled is not None and saved[_STEPS] is not None:
    ended = count == int(state.scheduled.end) - saved[_STEPS]
  now = resampling.locate(
    state.count, state.settings.resample_every, state.scheduled
  )
  return (
    saved["residual"] == "reset"
    and every is not None
    and ended
    and bool(now.starts)
  )


def _first_mixed(state: MixState) -> str:
  is_place = lambda node: isinstance(node, optax.MaskedNode)
  anchors = named_leaves(state.anchor, is_place)
  return next(path for path, leaf in anchors if not is_place(leaf))


def find_states(tree: Any) -> dict[str, MixState]:
  """The states of mixes in a tree, by their '/'-joined path in it."""
  nodes, _ = jax.tree_util.tree_flatten_with_path(
    tree, is_leaf=lambda node: isinstance(node, MixState)
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): node
    for path, node in nodes
    if isinstance(node, MixState)
  }
