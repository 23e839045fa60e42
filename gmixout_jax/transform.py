"""GMixout as an Optax transformation.

*Revisiting Mixout: An Overlooked Path to Robust Finetuning*, Aminbeidokhti,
Medeiros, Granger & Pedersoli, 2025, arXiv 2510.06982.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gmixout_jax import episodes
from gmixout_jax.anchor import Memory
from gmixout_jax.moments import InnerOptimizer, Moments
from gmixout_jax.spec import (
  MixSpec,
  Residual,
  check_anchor_decay,
  check_moments,
  raw_key,
)
from gmixout_jax.targets import Target


class Unmixed(optax.MaskedNode):
  """Stands in `GMixoutState.anchor` for a leaf that is not mixed."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GMixoutState:
  """State of `gmixout`. With ``residual="reset"`` no array in it is dense.

  Attributes:
    count: Optimizer steps taken, int32 scalar.
    key: Raw data of the masks' key, uint32 ``[2]``. It never advances.
    anchor_decay: λ of the latest step's episode, float scalar.
    anchor: Like the parameters: the anchor of each mixed leaf in float32 or
      wider, packed at the active entries (dense with ``residual="keep"``);
      `Unmixed` for other leaves. Stale between the last step of an episode
      and the first of the next: read it through `gmixout_eval_params`.
    learned: Like `anchor`, the learned weights with ``residual="keep"``; else
      None.
    scheduled: Current episode and its end if `resample_every` is a schedule;
      else None.
    inner_state: State of the inner optimizer, packed like `anchor`.
    spec: Static description of the mix (pytree metadata).
  """

  count: jax.Array
  key: jax.Array
  anchor_decay: jax.Array
  anchor: optax.Params
  learned: optax.Params | None
  scheduled: episodes.Scheduled | None
  inner_state: optax.OptState
  spec: MixSpec = dataclasses.field(metadata={"static": True})


def gmixout(
  inner: optax.GradientTransformation | None = None,
  *,
  sparsity: float = 0.9,
  anchor_decay: float | episodes.Schedule = 0.3,
  resample_every: episodes.Period = 50,
  key: jax.Array | int,
  sampler: str = "stratified",
  target: Target = None,
  residual: Residual = "reset",
  moments: Moments = "carry",
  rescale: bool = True,
) -> optax.GradientTransformationExtraArgs:
  r"""Fine-tunes through random sub-networks around a moving anchor.

  Most entries of every targeted matrix are pinned to the anchor; a random
  subset, the mask, trains. Every k optimizer steps (an *episode*) the anchor
  moves towards what was learned and the mask is redrawn.

  .. math::

    W_t &= A_t + M_t \odot \Delta_t / s \\
    \Delta_{t+1} &= \Delta_t + \text{inner}(M_t \odot \nabla L(W_t) / s) \\
    A &\leftarrow A + (1 - \lambda) \Delta, \quad \Delta \leftarrow 0, \quad
    \text{redraw } M \qquad \text{every } k \text{ steps}

  with W the parameters that you hold, A the anchor, M the mask, Δ the
  residual, s = 1 − `sparsity`, λ = `anchor_decay` and k = `resample_every`.
  Off the mask W = A at all times. The inner optimizer sees only the active
  entries, packed, so its state shrinks to the fraction s of a dense one, and
  its weight decay pulls towards the anchor.

  It emits changes of the live weights, so it must be the last transformation
  of a chain; wrappers such as `optax.MultiSteps` go around it. At evaluation
  use `gmixout_eval_params`.

  Args:
    inner: Optimizer of the residual; leaves that are not mixed go through it
      too. None if the incoming updates already are an optimizer's output, as
      in ``optax.chain(optax.adamw(1e-5), gx.gmixout(key=0))``: the optimizer
      then sees dense gradients without the factor 1/s, keeps dense moments
      and decays towards zero, and its output is masked and mixed. Under SGD
      ``chain(sgd(η/s), gmixout())`` is ``gmixout(sgd(η))``.
    sparsity: Fraction of entries held at the anchor, in [0, 1): the masking
      probability p. 0 trains everything: `optax.lookahead`. Static.
    anchor_decay: λ in [0, 1], or a schedule episode → λ. 0 makes the anchor
      what the episode learned; 1 never moves it.
    resample_every: k, optimizer steps per episode, at least 1; or a schedule
      episode → steps (rounded, at least 1); or None to never redraw.
    key: Key of the masks: a typed threefry key, its raw data, or an int.
    sampler: "stratified" (exact count per row, fast), "uniform" (exact count
      per matrix, as in the authors' code, slow), "bernoulli" (each entry on
      its own, as in the paper's text) or "neuron" (whole input rows).
    target: Which leaves are mixed. None: every floating-point leaf with at
      least two axes, seen as a matrix ``[..., cols]``. A regular expression
      (searched in the '/'-joined path) or a predicate on (path, leaf) narrows
      that. For the paper's choice on a ViT see `gmixout_labels`.
    residual: "reset" empties Δ at every redraw; "keep" never does, which
      needs dense memory (see `mixout`).
    moments: "carry" keeps the inner optimizer's moments over a redraw, where
      they come to mean other entries (as in the authors' code); "reset" sets
      those of mixed leaves, with their bias-correction count, back to zero.
      The inner optimizer then runs apart on mixed and on other leaves.
    rescale: Whether the forward pass divides Δ by s. False takes s = 1 in the
      equations above (not in the draw).

  Returns:
    An `optax.GradientTransformationExtraArgs` with state `GMixoutState`. Mask,
    anchor and residual are functions of (key, count, params): nothing else
    has to be saved to resume.

  Raises:
    ValueError: If an argument is out of range; at `init` if `target` selects
      no leaf or a leaf is too small to keep one entry; at `update` without
      `params`. The message quotes the value.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> import gmixout_jax as gx
    >>> params = {"kernel": jnp.ones((8, 40)), "bias": jnp.zeros(40)}
    >>> tx = gx.gmixout(optax.adam(1e-2), resample_every=5, key=0)
    >>> state = tx.init(params)
    >>> loss = lambda p: jnp.mean((p["kernel"].sum(0) + p["bias"]) ** 2)
    >>> for _ in range(7):
    ...   updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...   params = optax.apply_updates(params, updates)
    >>> deployed = gx.gmixout_eval_params(state, params)
    >>> jax.tree.map(jnp.shape, state.anchor)
    {'bias': Unmixed(), 'kernel': (8, 4)}

  Note:
    Where this differs from the authors' code: episodes count optimizer steps,
    not forward passes, so each has k of them, and gradient accumulation does
    not shorten it; layers of one shape draw different masks; the weights to
    evaluate are A + (1−λ)Δ, so an unfinished episode is not lost (at the end
    of an episode that is their A).

  Note:
    With `optax.inject_hyperparams`, list `sparsity`, `resample_every`,
    `target` and a scheduled `anchor_decay` in ``static_args``.
  """
  spec = MixSpec.create(
    sparsity=sparsity,
    sampler=sampler,
    resample_every=resample_every,
    target=target,
    residual=residual,
    rescale=rescale,
  )
  check_anchor_decay(anchor_decay)
  check_moments(moments)
  key_data = raw_key(key)
  optimizer = InnerOptimizer(
    optax.with_extra_args_support(optax.identity() if inner is None else inner),
    moments,
  )

  def decay_of(episode: jax.Array) -> jax.Array:
    value = anchor_decay(episode) if callable(anchor_decay) else anchor_decay
    return jnp.asarray(value, dtype=float)

  def init_fn(params: optax.Params) -> Any:
    leaves, treedef = jax.tree.flatten(params)
    mixed = spec.mixed_leaves(params)
    residuals = list(leaves)
    for i, mix in mixed.items():
      residuals[i] = mix.zero_residual(leaves[i])
    memories = {i: mix.init(leaves[i]) for i, mix in mixed.items()}
    return GMixoutState(
      count=jnp.zeros((), jnp.int32),
      key=jnp.array(key_data),
      anchor_decay=decay_of(jnp.zeros((), jnp.int32)),
      **_memory_trees(treedef, memories, spec),
      scheduled=episodes.first_schedule(spec.resample_every),
      inner_state=optimizer.init(treedef, residuals, mixed),
      spec=spec,
    )

  def update_fn(
    updates: optax.Updates,
    state: Any,
    params: optax.Params | None = None,
    **extra_args: Any,
  ) -> tuple[optax.Updates, Any]:
    if params is None:
      raise ValueError(
        "gmixout mixes the current weights with their anchor, so its update"
        " needs them: call update(updates, state, params), got params=None."
      )
    now = episodes.locate(state.count, spec.resample_every, state.scheduled)
    decay = decay_of(now.number)
    leaves, treedef = jax.tree.flatten(params)
    gradients = treedef.flatten_up_to(updates)
    residuals = list(leaves)
    memories = _memories(treedef, state)
    mixed = spec.mixed_leaves(params)
    here = {
      i: mix.step(leaves[i], state.key, now, decay) for i, mix in mixed.items()
    }

    for i, mix in mixed.items():
      residuals[i], memories[i] = mix.begin(leaves[i], memories[i], here[i])
      if gradients[i] is not None:
        active = mix.active(gradients[i], here[i])
        gradients[i] = active if inner is None else active / mix.scale

    steps, inner_state = optimizer.update(
      treedef,
      gradients,
      state.inner_state,
      residuals,
      mixed,
      restart=now.starts,
      extra_args=extra_args,
    )

    for i, mix in mixed.items():
      if steps[i] is not None:
        steps[i], memories[i] = mix.finish(
          leaves[i], residuals[i], steps[i], memories[i], here[i]
        )
    return treedef.unflatten(steps), dataclasses.replace(
      state,
      count=optax.safe_increment(state.count),
      anchor_decay=decay,
      **_memory_trees(treedef, memories, spec),
      scheduled=episodes.advance(now, spec.resample_every, state.scheduled),
      inner_state=inner_state,
    )

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _memories(treedef: Any, state: GMixoutState) -> dict[int, Memory]:
  """Memory of the mixed leaves by their position among the parameters."""
  anchors = treedef.flatten_up_to(state.anchor)
  learned = [None] * len(anchors)
  if state.learned is not None:
    learned = treedef.flatten_up_to(state.learned)
  return {
    i: Memory(*parts)
    for i, parts in enumerate(zip(anchors, learned, strict=True))
    if not isinstance(parts[0], optax.MaskedNode)
  }


def _memory_trees(
  treedef: Any, memories: dict[int, Memory], spec: MixSpec
) -> dict[str, Any]:
  """The state's `anchor` and `learned`: the inverse of `_memories`."""
  anchors, learned = (
    treedef.unflatten(
      [
        memories[i][part] if i in memories else Unmixed()
        for i in range(treedef.num_leaves)
      ]
    )
    for part in range(2)
  )
  keeps = spec.residual == "keep"
  return {"anchor": anchors, "learned": learned if keeps else None}
