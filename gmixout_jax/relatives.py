"""Mixout and Random Mask: two older methods, as settings of `gmixout`."""

import jax
import optax

from gmixout_jax.targets import Target
from gmixout_jax.transform import gmixout
from pallas_kernels.implementation import Implementation


def mixout(
  inner: optax.GradientTransformation | None = None,
  *,
  sparsity: float = 0.9,
  key: jax.Array | int,
  sampler: str = "neuron",
  target: Target = None,
) -> optax.GradientTransformationExtraArgs:
  """Mixout: swaps a new random part of the weights back at every step.

  `gmixout` with a residual that is kept, an anchor that never moves and a mask
  that is redrawn at every step. The learned weights A + Δ are what
  `gmixout_eval_params` returns. Its memory is dense: anchor, learned weights
  and moments, beside the live weights.

  Args:
    inner: See `gmixout`.
    sparsity: Probability p of swapping an entry for its pretrained value, in
      [0, 1). Lee et al. use 0.5 to 0.9, High-Rate Mixout 0.9 for ViTs.
    key: Key of the masks.
    sampler: "neuron" swaps all outgoing weights of an input neuron together,
      as the original does; High-Rate Mixout on ViTs swaps entries one by one,
      "bernoulli".
    target: Which leaves are mixed.

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
    residual="keep",
  )


def random_mask(
  inner: optax.GradientTransformation | None = None,
  *,
  sparsity: float = 0.9,
  key: jax.Array | int,
  sampler: str = "stratified",
  target: Target = None,
  implementation: Implementation | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Random masking: one mask for the whole run trains, the rest is frozen.

  `gmixout` that never redraws, with a forward pass W = A + M⊙Δ that is not
  rescaled. `gmixout_eval_params` returns A + Δ, which is W. Sparser masks want
  a larger learning rate: about 1e-2 where 0.01 % trains.

  Args:
    inner: See `gmixout`.
    sparsity: Fraction of entries that stay frozen, in [0, 1).
    key: Key of the mask.
    sampler: Law of the mask, see `gmixout`.
    target: Which leaves are masked.
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
    rescale=False,
    implementation=implementation,
  )
