"""Reading a GMixout state: the evaluation weights, and the current mask."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gmixout_jax import labels
from gmixout_jax._core import resampling
from gmixout_jax._core.mixed_leaf import AnchorState, LeafStep, MixedLeaf
from gmixout_jax._core.step import (
  MixState,
  Unmixed,
  check_memory,
  leaf_steps,
)


def gmixout_eval_params(opt_state: Any, params: Any) -> Any:
  """The evaluation weights: what to evaluate, save and serve.

  For `gmixout` they are A + (1−λ)Δ, the anchor that the episode would leave if
  it ended now. So nothing of an unfinished episode is lost, and at the end of
  an episode they equal the training weights. For `mixout`, `random_mask` and
  any ``residual="keep"`` they are A + Δ, the learned weights. Leaves that are
  not mixed are returned unchanged.

  Args:
    opt_state: A state of `gmixout`, or of anything that wraps it: chain,
      MultiSteps, masked, partition, apply_if_finite, inject_hyperparams, an
      `nnx.Optimizer`'s ``opt_state``, a Linen TrainState's ``opt_state``.
    params: The training weights, whole (also where gmixout sees a part of
      them).

  Returns:
    A pytree like `params`.

  Raises:
    ValueError: If there is no GMixout state, or it does not fit `params`.

  >>> import jax, jax.numpy as jnp, optax
  >>> import gmixout_jax as gx
  >>> params = {"kernel": jnp.ones((4, 10))}
  >>> tx = optax.chain(optax.clip(1.0), gx.gmixout(optax.sgd(0.1), key=0))
  >>> state = tx.init(params)
  >>> updates, state = tx.update(params, state, params)
  >>> params = optax.apply_updates(params, updates)
  >>> evaluated = gx.gmixout_eval_params(state, params)

  With s = 0.1 and λ = 0.3, the training weights changed by 0.1/s² on the mask;
  the evaluation weights change by (1−λ)·0.1/s:

  >>> round(float(params["kernel"].min()), 3)
  -9.0
  >>> round(float(evaluated["kernel"].min()), 3)
  0.3
  """
  return _map_leaves(
    opt_state, params, mixed=_evaluated, dense=lambda leaf: leaf
  )


def gmixout_masks(opt_state: Any, params: Any) -> Any:
  """The mask of the current episode.

  Args:
    opt_state: As for `gmixout_eval_params`.
    params: The training weights, whole.

  Returns:
    A pytree like `params` of boolean arrays: the mask of a mixed leaf, True
    for a leaf that trains unmixed, False for one that `gmixout` does not train:
    masked out, sent elsewhere by a partition, or of integers, booleans or keys.

  Raises:
    ValueError: As `gmixout_eval_params`.

  >>> import jax, jax.numpy as jnp, optax
  >>> import gmixout_jax as gx
  >>> params = {"kernel": jnp.ones((4, 10)), "bias": jnp.ones(10)}
  >>> state = gx.gmixout(optax.sgd(0.1), sparsity=0.8, key=0).init(params)
  >>> gx.gmixout_masks(state, params)["kernel"].sum(axis=1)
  Array([2, 2, 2, 2], dtype=int32)
  """
  return _map_leaves(
    opt_state,
    params,
    mixed=_mask,
    dense=lambda leaf: jnp.ones_like(leaf, dtype=jnp.bool_),
    unseen=lambda leaf: jnp.zeros_like(leaf, dtype=jnp.bool_),
  )


def _evaluated(
  mix: MixedLeaf, leaf: jax.Array, memory: AnchorState, step: LeafStep
) -> jax.Array:
  return mix.evaluated(leaf, memory, step)


def _mask(
  mix: MixedLeaf, leaf: jax.Array, memory: AnchorState, step: LeafStep
) -> jax.Array:
  del memory
  return mix.layout.mask(step.indices, leaf)


# Where nothing is being traced, a program per shape and not a dozen.
@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _of_leaf(
  what: Callable[..., jax.Array],
  mix: MixedLeaf,
  leaf: jax.Array,
  memory: AnchorState,
  indices: jax.Array,
  episode: resampling.Episode,
  anchor_decay: jax.Array,
) -> jax.Array:
  def redraw(ends: jax.Array) -> jax.Array:
    raise AssertionError("no accessor reads beyond the current mask")

  step = LeafStep(indices, redraw, episode, anchor_decay)
  return what(mix, leaf, memory, step)


def states_in[S](opt_state: Any, kind: type[S]) -> list[S]:
  """All states of a kind in a pytree, those inside one another left out."""
  is_state = lambda node: isinstance(node, kind)
  nodes = jax.tree.leaves(opt_state, is_leaf=is_state)
  return [node for node in nodes if isinstance(node, kind)]


def _find_states(opt_state: Any) -> list[MixState]:
  """All GMixout states in a pytree, with NNX variables unwrapped."""
  states = [nnx.as_pure(state) for state in states_in(opt_state, MixState)]
  if not states:
    raise ValueError(
      "opt_state holds no state of gmixout, mixout or random_mask; got"
      f" {type(opt_state).__name__} with structure"
      f" {jax.tree.structure(opt_state)}."
    )
  return states


def _map_leaves(
  opt_state: Any,
  params: Any,
  *,
  mixed: Callable[..., jax.Array],
  dense: Callable[[jax.Array], jax.Array],
  unseen: Callable[[jax.Array], jax.Array] = lambda leaf: leaf,
) -> Any:
  """Maps each leaf by what the GMixout states in `opt_state` do with it.

  Leaves are matched by path, as a state may be a `flax.nnx.State` or a masked
  tree while `params` is a plain dict.
  """
  named = labels.named_leaves(params)
  results = [unseen(leaf) for _, leaf in named]
  for state in _find_states(opt_state):
    settings = state.settings
    episode = resampling.locate(
      state.count, settings.resample_every, state.scheduled
    )
    memories = _memories_by_path(state)
    unknown = sorted(set(memories) - {path for path, _ in named})
    if unknown:
      raise ValueError(
        f"opt_state mixes the leaf {unknown[0]!r}, which params lacks: they"
        " belong to different models."
      )
    mixes = {}
    for i, (path, leaf) in enumerate(named):
      memory = memories.get(path)
      if memory is not None:
        mixes[i] = settings.mixed_leaf(path, leaf)
        check_memory(mixes[i], leaf, memory)
      elif path in memories:
        results[i] = dense(leaf)
    steps = leaf_steps(
      mixes,
      [leaf for _, leaf in named],
      state.key,
      episode,
      state.anchor_decay,
    )
    for i, mix in mixes.items():
      path, leaf = named[i]
      # Leaves of one shape share a program: but for the path they are alike.
      alike = dataclasses.replace(mix, path="")
      results[i] = _of_leaf(
        mixed,
        alike,
        leaf,
        memories[path],
        steps[i].indices,
        episode,
        state.anchor_decay,
      )
  return jax.tree.unflatten(jax.tree.structure(params), results)


def _memories_by_path(state: MixState) -> dict[str, AnchorState | None]:
  """Memory of each mixed leaf, None for unmixed ones; masked ones left out."""
  is_node = lambda node: isinstance(node, optax.MaskedNode)
  anchors = labels.named_leaves(state.anchor, is_node)
  learned = dict(labels.named_leaves(state.learned, is_node))
  memories = {}
  for path, anchor in anchors:
    if not is_node(anchor):
      own = learned[path]
      memories[path] = AnchorState(anchor, None if is_node(own) else own)
    elif isinstance(anchor, Unmixed):
      memories[path] = None
  return memories
