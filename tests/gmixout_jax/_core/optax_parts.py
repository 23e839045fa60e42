"""What optimizers of Optax are made of, and what is made of them."""

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from tests.gmixout_jax._core.optax_optimizers import (
  DENSE,
  EXAMPLES,
  LOSS,
  MOVES,
  MULTIPLE,
  OUTPUTS,
  RESIDUAL,
  SEARCHED,
  SLOW,
  VARIANCE,
  Row,
  holds,
)


def rated(transformation, rate=0.05):
  return lambda: optax.chain(transformation, optax.scale_by_learning_rate(rate))


def before_sgd(*transformations, rate=0.3):
  return lambda: optax.chain(*transformations, optax.sgd(rate))


def is_matrix(tree):
  return jax.tree.map(lambda leaf: jnp.ndim(leaf) == 2, tree)


def labels(tree):
  return jax.tree.map(lambda yes: "matrix" if yes else "other", is_matrix(tree))


def muon_of_matrices():
  numbers = contrib.MuonDimensionNumbers()
  of_all = lambda tree: jax.tree.map(lambda _: numbers, tree)
  muon = rated(contrib.scale_by_muon(weight_dimension_numbers=of_all))()
  return optax.partition({"matrix": muon, "other": optax.sgd(0.3)}, labels)


def none_of(tree):
  return jax.tree.map(lambda _: False, tree)


def always(step, **_):
  return step >= 0


def wrapper(wrap, inside="", around="", resets=True):
  """A row of what is made of another optimizer: SGD here."""
  make = lambda: wrap(optax.sgd(0.3))
  return Row(make, inside, around, wrap, resets=resets)


sgd = optax.sgd
PARTS: dict[str, Row] = {
  "optax.adaptive_grad_clip": Row(
    before_sgd(optax.adaptive_grad_clip(100.0)), RESIDUAL
  ),
  "optax.add_decayed_weights": Row(
    before_sgd(optax.add_decayed_weights(1e-4)),
    "pulls towards the anchor",
    "pulls towards zero",
  ),
  "optax.add_noise": Row(before_sgd(optax.add_noise(1e-4, 0.5, key=0))),
  "optax.apply_every": Row(
    before_sgd(optax.apply_every(2), rate=0.1),
    MULTIPLE,
    MULTIPLE,
  ),
  "optax.centralize": Row(before_sgd(optax.centralize())),
  "optax.clip": Row(before_sgd(optax.clip(10.0))),
  "optax.clip_by_block_rms": Row(before_sgd(optax.clip_by_block_rms(10.0))),
  "optax.clip_by_global_norm": Row(before_sgd(optax.clip_by_global_norm(10.0))),
  "optax.ema": Row(before_sgd(optax.ema(0.5))),
  "optax.freeze": Row(
    lambda: optax.chain(optax.freeze(none_of), sgd(0.3)),
  ),
  "optax.identity": Row(before_sgd(optax.identity())),
  "optax.keep_params_nonnegative": Row(
    before_sgd(optax.keep_params_nonnegative()),
    "no: keeps residuals from being negative, not weights",
    "no: gmixout masks its corrections",
  ),
  "optax.measure_with_ema": Row(
    lambda: optax.chain(
      optax.monitor({"norm": optax.measure_with_ema(optax.tree.norm, 0.9)}),
      sgd(0.3),
    ),
    "in optax.monitor, see there",
    "in optax.monitor",
    resets=False,
    scans=False,
  ),
  "optax.monitor": Row(
    before_sgd(optax.monitor({"norm": optax.tree.norm})),
    "not with moments='reset': its state changes its structure",
    resets=False,
    scans=False,
  ),
  "optax.normalize_by_update_norm": Row(
    rated(optax.normalize_by_update_norm(), 0.1)
  ),
  "optax.scale": Row(before_sgd(optax.scale(1.0))),
  "optax.scale_by_adadelta": Row(rated(optax.scale_by_adadelta(), 30.0)),
  "optax.scale_by_adam": Row(rated(optax.scale_by_adam())),
  "optax.scale_by_adamax": Row(rated(optax.scale_by_adamax())),
  "optax.scale_by_adan": Row(rated(optax.scale_by_adan())),
  "optax.scale_by_amsgrad": Row(rated(optax.scale_by_amsgrad())),
  "optax.scale_by_backtracking_linesearch": Row(
    before_sgd(optax.scale_by_backtracking_linesearch(3)), LOSS, SEARCHED
  ),
  "optax.scale_by_belief": Row(rated(optax.scale_by_belief())),
  "optax.scale_by_distance_over_gradients": Row(
    lambda: optax.chain(
      optax.scale_by_distance_over_gradients(reps_rel=1e-2),
      optax.scale_by_learning_rate(1.0),
    ),
    holds("`init_params`") + "; its distance is kept",
    DENSE,
  ),
  "optax.scale_by_factored_rms": Row(rated(optax.scale_by_factored_rms())),
  "optax.scale_by_lbfgs": Row(
    rated(optax.scale_by_lbfgs(), 0.1), holds("its whole state"), DENSE
  ),
  "optax.scale_by_learning_rate": Row(
    lambda: optax.scale_by_learning_rate(0.3)
  ),
  "optax.scale_by_lion": Row(rated(optax.scale_by_lion(), 0.02)),
  "optax.scale_by_novograd": Row(rated(optax.scale_by_novograd())),
  "optax.scale_by_optimistic_gradient": Row(
    rated(optax.scale_by_optimistic_gradient(), 0.1)
  ),
  "optax.scale_by_param_block_norm": Row(
    rated(optax.scale_by_param_block_norm(), 0.01), SLOW
  ),
  "optax.scale_by_param_block_rms": Row(
    rated(optax.scale_by_param_block_rms(), 0.1), SLOW
  ),
  "optax.scale_by_polyak": Row(
    rated(optax.scale_by_polyak(max_learning_rate=0.3), 1.0), told=("value",)
  ),
  "optax.scale_by_radam": Row(rated(optax.scale_by_radam(), 0.1)),
  "optax.scale_by_rms": Row(rated(optax.scale_by_rms(), 0.02)),
  "optax.scale_by_rprop": Row(
    lambda: optax.chain(
      optax.scale_by_rprop(0.01, max_step_size=0.05), optax.scale(-1.0)
    )
  ),
  "optax.scale_by_rss": Row(rated(optax.scale_by_rss(), 0.3)),
  "optax.scale_by_schedule": Row(
    before_sgd(optax.scale_by_schedule(lambda count: 0.9**count + 0.5))
  ),
  "optax.scale_by_sign": Row(rated(optax.scale_by_sign(), 0.02)),
  "optax.scale_by_sm3": Row(rated(optax.scale_by_sm3(), 0.05)),
  "optax.scale_by_stddev": Row(rated(optax.scale_by_stddev(), 0.01)),
  "optax.scale_by_trust_ratio": Row(
    rated(optax.scale_by_trust_ratio(), 0.05), RESIDUAL
  ),
  "optax.scale_by_yogi": Row(rated(optax.scale_by_yogi())),
  "optax.scale_by_zoom_linesearch": Row(
    before_sgd(optax.scale_by_zoom_linesearch(3)), LOSS, SEARCHED
  ),
  "optax.set_to_zero": Row(
    optax.set_to_zero, "no: moves nothing", "no: the same"
  ),
  "optax.snapshot": Row(before_sgd(optax.snapshot("norm", optax.tree.norm))),
  "optax.stateless": Row(
    before_sgd(optax.stateless(lambda updates, params: updates))
  ),
  "optax.stateless_with_tree_map": Row(
    before_sgd(optax.stateless_with_tree_map(lambda update, param: update))
  ),
  "optax.trace": Row(before_sgd(optax.trace(0.5))),
  "optax.zero_nans": Row(before_sgd(optax.zero_nans())),
  "optax.contrib.differentially_private_aggregate": Row(
    before_sgd(contrib.differentially_private_aggregate(1.0, 0.0, key=0)),
    EXAMPLES,
    EXAMPLES,
  ),
  "optax.contrib.hutchinson_estimator_diag_hessian": Row(
    contrib.hutchinson_estimator_diag_hessian, LOSS, OUTPUTS
  ),
  "optax.contrib.normalize": Row(rated(contrib.normalize(), 0.1)),
  "optax.contrib.reduce_on_plateau": Row(
    before_sgd(contrib.reduce_on_plateau()), told=("value",)
  ),
  "optax.contrib.scale_by_acprop": Row(
    rated(contrib.scale_by_acprop()), VARIANCE, resets=False
  ),
  "optax.contrib.scale_by_ademamix": Row(rated(contrib.scale_by_ademamix())),
  "optax.contrib.scale_by_adopt": Row(rated(contrib.scale_by_adopt())),
  "optax.contrib.scale_by_cocob": Row(
    contrib.scale_by_cocob,
    holds("`init_particles` and `cumulative_gradients`"),
    DENSE,
  ),
  "optax.contrib.scale_by_galore": Row(
    rated(contrib.scale_by_galore(rank=4)), "projects packed matrices"
  ),
  "optax.contrib.scale_by_madgrad": Row(
    lambda: contrib.scale_by_madgrad(0.03), holds("`x0` and `s`"), DENSE
  ),
  "optax.contrib.scale_by_muon": Row(
    muon_of_matrices,
    "orthogonalizes packed matrices",
  ),
  "optax.contrib.scale_by_simplified_ademamix": Row(
    rated(contrib.scale_by_simplified_ademamix())
  ),
}
WRAPPERS: dict[str, Row] = {
  "optax.MultiSteps": wrapper(
    lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    MULTIPLE + "; around, masks wait for it",
  ),
  "optax.apply_if_finite": wrapper(
    lambda tx: optax.apply_if_finite(tx, 5),
    "a skipped step counts for the mask; around, it does not",
  ),
  "optax.chain": wrapper(
    lambda tx: optax.chain(optax.clip(10.0), tx), "", "gmixout is the last"
  ),
  "optax.conditionally_mask": wrapper(
    lambda tx: optax.conditionally_mask(tx, always)
  ),
  "optax.conditionally_transform": wrapper(
    lambda tx: optax.conditionally_transform(tx, always),
    "",
    "its condition must always hold: gmixout has to see every update",
  ),
  "optax.flatten": wrapper(
    optax.flatten,
    "not with moments='reset'",
    "no: leaves no matrix to mix",
    resets=False,
  ),
  "optax.inject_hyperparams": wrapper(
    lambda tx: optax.inject_hyperparams(lambda unused: tx)(unused=1.0),
  ),
  "optax.inject_stateful_hyperparams": wrapper(
    lambda tx: optax.inject_stateful_hyperparams(lambda unused: tx)(unused=1.0),
  ),
  "optax.lookahead": wrapper(
    lambda tx: optax.lookahead(tx, 5, 0.5),
    "no: takes LookaheadParams, around gmixout",
  ),
  "optax.masked": wrapper(
    lambda tx: optax.masked(tx, lambda tree: jax.tree.map(lambda _: True, tree))
  ),
  "optax.multi_transform": wrapper(
    lambda tx: optax.multi_transform({"matrix": tx, "other": sgd(0.3)}, labels),
  ),
  "optax.named_chain": wrapper(
    lambda tx: optax.named_chain(("clip", optax.clip(10.0)), ("last", tx)),
    "",
    "gmixout is the last",
  ),
  "optax.partition": wrapper(
    lambda tx: optax.partition({"matrix": tx, "other": sgd(0.3)}, labels),
  ),
  "optax.selective_transform": wrapper(
    lambda tx: optax.selective_transform(
      tx, freeze_mask={"kernel": False, "bias": False}
    ),
    "not with moments='reset', as it is made for one tree",
    resets=False,
  ),
  "optax.with_extra_args_support": wrapper(optax.with_extra_args_support),
  "optax.contrib.mechanize": wrapper(
    contrib.mechanize, holds("`x0`") + "; its scales are kept", MOVES
  ),
  "optax.contrib.sam": wrapper(
    lambda tx: contrib.sam(
      tx, optax.chain(contrib.normalize(), sgd(0.01)), sync_period=2
    ),
    holds("`cache`") + "; " + MULTIPLE,
    "its ascent moves all weights and is undone; k counts both steps",
  ),
  "optax.contrib.schedule_free": wrapper(
    lambda tx: contrib.schedule_free(tx, 0.3),
    holds("`z` and `weight_sum`"),
    MOVES,
  ),
  "optax.contrib.split_real_and_imaginary": wrapper(
    contrib.split_real_and_imaginary, "complex leaves are not mixed"
  ),
}
