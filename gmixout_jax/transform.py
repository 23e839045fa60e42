"""GMixout as an Optax transformation.

*Revisiting Mixout: An Overlooked Path to Robust Finetuning*, Aminbeidokhti,
Medeiros, Granger & Pedersoli, 2025, arXiv 2510.06982.
"""

import dataclasses
from typing import Any, Unpack

import jax
import optax
from flax import struct

from gmixout_jax._core import axes as axes_lib
from gmixout_jax._core import description
from gmixout_jax._core import step as steps
from gmixout_jax._core.inner_optimizer import InnerOptimizer, with_extra_args
from gmixout_jax._core.keys import raw_key
from gmixout_jax._core.settings import MixSettings, Settings, takes_settings
from gmixout_jax.labels import Target
from pallas_kernels.dispatch import Implementation


@description.serialized
@struct.dataclass
class GMixoutState(steps.MixState):
  """State of `gmixout`. With ``residual="reset"`` no array in it is dense.

  Attributes:
    inner_state: State of the inner optimizer, packed like `anchor`.
  """

  inner_state: optax.OptState


@takes_settings
def gmixout(
  inner: optax.GradientTransformation | None = None,
  *,
  key: jax.Array | int,
  **settings: Unpack[MixSettings],
) -> optax.GradientTransformationExtraArgs:
  r"""Fine-tunes through random sub-networks around a moving anchor.

  Most entries of every targeted matrix are held at the anchor; a random subset,
  the mask, trains. Every k optimizer steps (an *episode*) the anchor takes up
  the share 1 − λ of what was learned, and the mask is redrawn.

  .. math::

    W_t &= A_t + M_t \odot \Delta_t / s \\
    \Delta_{t+1} &= \Delta_t + \text{inner}(M_t \odot \nabla L(W_t) / s) \\
    A &\leftarrow A + (1 - \lambda) \Delta, \quad \Delta \leftarrow 0, \quad
    \text{redraw } M \qquad \text{every } k \text{ steps}

  with W the training weights, which you hold, A the anchor, M the mask, Δ the
  residual, s = 1 − `sparsity`, λ = `anchor_decay` and k = `resample_every`.
  Off the mask W = A at all times. The inner optimizer sees only the active
  entries, packed, so its state shrinks to the fraction s of a dense one, and
  its weight decay pulls towards the anchor.

  Its updates apply to the training weights, so it must be the last
  transformation of a chain; wrappers such as `optax.MultiSteps` go around it.
  At evaluation use `gmixout_eval_params`.

  Args:
    inner: Optimizer of the residual and of the leaves that are not mixed. It
      sees all leaves in float32 or wider. Weights in its state restart with
      every mask; an optimizer that holds weights in an unknown way is refused,
      see `register_held_weights`. Its learning rate should be about five times
      that of full fine-tuning, less with a larger k: `gmixout_learning_rate`.
      None if the incoming updates already are an optimizer's output, as in
      ``optax.chain(optax.adamw(1e-5), gx.gmixout(key=0))``: the optimizer then
      sees dense gradients without the factor 1/s, keeps dense moments and
      decays towards zero; its output is masked and mixed. Under SGD
      ``chain(sgd(η/s), gmixout())`` equals ``gmixout(sgd(η))``.
    sparsity: Fraction of entries held at the anchor, in [0, 1): the masking
      probability p. With 0 everything trains, the mixed leaves as under
      `optax.lookahead`. Static.
    anchor_decay: λ in [0, 1], or a schedule episode → λ. With 0 the anchor
      becomes what the episode learned; with 1 it never changes.
    resample_every: k, optimizer steps per episode, at least 1; or a schedule
      episode → steps (rounded, at least 1); or None to never redraw.
    key: Key of the masks: a typed threefry key, its raw data, or an int.
    sampler: "stratified" (exact count per row, fast), "uniform" (exact count
      per matrix, as in the authors' code), "bernoulli" (each entry on its own,
      as in the paper's text) or "neuron" (whole inputs, with all of their
      outgoing weights; each layer of a stack on its own).
    target: Which leaves are mixed. None: every floating-point leaf with at
      least two axes, but those whose name says bias, scale, norm, embedding or
      token: `labels.PASSED_OVER_NAMES` and `PASSED_OVER_MODULES` list them. A
      regular expression (searched in the '/'-joined path) or a predicate on
      (path, leaf) selects among all matrices. `gmixout_summary` shows the
      selection; for the paper's choice on a ViT see `gmixout_labels`.
    axes: What the axes of a leaf mean, for "neuron": "flax" (``[in, out]``,
      ``[h, w, in, out]``, attention's kernels by name), "torch" (``[out,
      in]``, ``[out, in, h, w]``), or a function (path, leaf) → one letter an
      axis: ``i`` input, ``o`` output, ``s`` space, ``l`` layer of a stack; or
      None for an unknown leaf. `gx.nnx.axes` and `gx.linen.axes` make such a
      function from a module.
    residual: "reset" empties Δ at every redraw; "keep" never does, which
      needs dense memory (see `mixout`).
    moments: "carry" keeps the inner optimizer's moments over a redraw, although
      they then belong to other entries (as in the authors' code); "reset" zeros
      the moments of mixed leaves and their bias-correction count. The inner
      optimizer then runs separately on mixed and on other leaves.
    rescale: Whether the forward pass divides Δ by s. False takes s = 1 in the
      equations above (not in the draw).
    implementation: How active entries of stratified masks are read and written:
      "xla", or the GPU kernels "mosaic_gpu" or "triton" (arrays on one device;
      inside `jax.shard_map` if there are more). None picks the fastest that
      can run.

  Returns:
    An `optax.GradientTransformationExtraArgs` with state `GMixoutState`. To
    resume a run, save this state and the parameters; no mask is stored.

  Raises:
    ValueError: If an argument is out of range; at `init` if `target` selects
      no leaf, a leaf is too small to keep one entry, the axes of a leaf are
      unknown under "neuron", or `inner` holds weights in an unknown way; at
      `update` without `params`, or with a state made with other settings. The
      message quotes the value.
    NotImplementedError: If `implementation` cannot run here; says why.

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
    >>> eval_params = gx.gmixout_eval_params(state, params)
    >>> jax.tree.map(jnp.shape, state.anchor)
    {'bias': Unmixed(), 'kernel': (8, 4)}

  Note:
    Differences from the authors' code: an episode is k optimizer steps, not
    forward passes, so gradient accumulation does not shorten it; layers of one
    shape draw different masks; the evaluation weights are A + (1−λ)Δ, so an
    unfinished episode is not lost (at the end of an episode this is their A).

  Note:
    Updates have the dtype of the parameters. In low precision an update larger
    than the weight it changes is rounded, and so is the training weight;
    `MixedParams` rounds training weights once.

  Note:
    With `optax.inject_hyperparams`, list `sparsity`, `resample_every` and any
    functions (`target`, `axes`, `anchor_decay`) in ``static_args``.
  """
  mix = Settings(**settings)
  if isinstance(mix.target, tuple):
    raise ValueError(
      "gmixout freezes nothing, so it takes no rules as target; use"
      f" optax.partition with gmixout_labels, got {mix.target!r}."
    )
  key_data = raw_key(key)
  optimizer = InnerOptimizer(
    with_extra_args(optax.identity() if inner is None else inner),
    mix.moments,
    empties=mix.empties_residuals,
  )

  def init_fn(params: optax.Params) -> Any:
    tree = steps.MixedTree.of(params, mix)
    return GMixoutState.of(
      tree,
      mix,
      key=key_data,
      inner_state=optimizer.init(tree.packed, tree.residuals, tree.mixes),
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
    if not isinstance(state, GMixoutState):
      raise ValueError(
        "gmixout's update needs the state that its init made, got"
        f" {type(state).__name__}."
      )
    steps.check_settings(state, params, mix)
    begun = steps.begin(state, params, mix.anchor_decay)
    tree = begun.tree
    gradients = tree.treedef.flatten_up_to(updates)
    for i, leaf in tree.mixes.items():
      if gradients[i] is not None:
        if gradients[i].shape != tree.leaves[i].shape:
          raise ValueError(
            f"updates must have the shapes of params: leaf {leaf.path!r} has"
            f" {tree.leaves[i].shape}, got {gradients[i].shape}."
          )
        active = leaf.active(gradients[i], begun.steps[i].indices)
        gradients[i] = active if inner is None else active / leaf.divisor
    inner_updates, inner_state = optimizer.update(
      tree.packed,
      gradients,
      state.inner_state,
      begun.residuals,
      tree.mixes,
      restart=begun.episode.starts,
      extra_args=extra_args,
    )
    changes, state = steps.finish(state, begun, inner_updates)
    for i, leaf in tree.mixes.items():
      if changes[i] is not None:
        changes[i] = leaf.dense(
          changes[i], begun.steps[i].indices, tree.leaves[i]
        )
    state = dataclasses.replace(state, inner_state=inner_state)
    return tree.treedef.unflatten(changes), state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def mixout(
  inner: optax.GradientTransformation | None = None,
  *,
  sparsity: float = 0.9,
  key: jax.Array | int,
  sampler: str = "neuron",
  target: Target = None,
  axes: axes_lib.Axes = "flax",
  implementation: Implementation | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Mixout: swaps a new random part of the weights back at every step.

  `gmixout` with a residual that is kept, a fixed anchor and a mask that is
  redrawn at every step. `gmixout_eval_params` returns the learned weights
  A + Δ. Its memory is dense: anchor, learned weights and moments, besides the
  training weights.

  Args:
    inner: See `gmixout`.
    sparsity: Probability p of swapping an entry for its pretrained value, in
      [0, 1). Lee et al. use 0.5 to 0.9, High-Rate Mixout 0.9 for ViTs.
    key: Key of the masks.
    sampler: "neuron" swaps all outgoing weights of an input neuron together,
      as the original does; High-Rate Mixout on ViTs swaps entries one by one,
      "bernoulli".
    target: Which leaves are mixed.
    axes: What the axes of a leaf mean, see `gmixout`.
    implementation: Of stratified masks, see `gmixout`.

  Returns:
    An `optax.GradientTransformationExtraArgs` with state `GMixoutState`.

  Raises:
    ValueError: As `gmixout`.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> import gmixout_jax as gx
    >>> tx = gx.mixout(optax.adam(1e-4), sparsity=0.9, key=0)
    >>> params = {"kernel": jnp.ones((20, 4))}
    >>> state = tx.init(params)
    >>> updates, state = tx.update(params, state, params)

  Note:
    The public PyTorch layer divides the residual by s in its forward pass but
    not the gradient in its backward pass. This is the derivative: gradients
    carry 1/s. Under Adam the difference all but cancels; under SGD, clipping
    or an L2 term in the loss it does not.

  References:
    Lee, Cho & Kang, `Mixout <https://arxiv.org/abs/1909.11299>`_, 2020;
    `High-Rate Mixout <https://arxiv.org/abs/2510.06955>`_, 2025.
  """
  return gmixout(
    inner,
    sparsity=sparsity,
    anchor_decay=1.0,
    resample_every=1,
    key=key,
    sampler=sampler,
    target=target,
    axes=axes,
    residual="keep",
    implementation=implementation,
  )


def random_mask(
  inner: optax.GradientTransformation | None = None,
  *,
  sparsity: float = 0.9,
  key: jax.Array | int,
  sampler: str = "stratified",
  target: Target = None,
  axes: axes_lib.Axes = "flax",
  implementation: Implementation | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Random masking: one mask for the whole run trains, the rest is frozen.

  `gmixout` that never redraws, with a forward pass W = A + M⊙Δ that is not
  rescaled. `gmixout_eval_params` returns A + Δ, which is W. Sparser masks need
  a larger learning rate: about 1e-2 if 0.01 % of the entries train.

  Args:
    inner: See `gmixout`.
    sparsity: Fraction of entries that stay frozen, in [0, 1).
    key: Key of the mask.
    sampler: The mask distribution, see `gmixout`.
    target: Which leaves are masked.
    axes: What the axes of a leaf mean, see `gmixout`.
    implementation: Of stratified masks, see `gmixout`.

  Returns:
    An `optax.GradientTransformationExtraArgs` with state `GMixoutState`.

  Raises:
    ValueError: As `gmixout`.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> import gmixout_jax as gx
    >>> tx = gx.random_mask(optax.adam(1e-3), sparsity=0.75, key=0)
    >>> params = {"kernel": jnp.ones((20, 4))}
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> int((updates["kernel"] != 0).sum())
    20

  References:
    Xu & Zhang, `Random Masking Finds Winning Tickets for Parameter Efficient
    Fine-tuning <https://arxiv.org/abs/2405.02596>`_, 2024.
  """
  return gmixout(
    inner,
    sparsity=sparsity,
    anchor_decay=0.0,
    resample_every=None,
    key=key,
    sampler=sampler,
    target=target,
    axes=axes,
    rescale=False,
    implementation=implementation,
  )
