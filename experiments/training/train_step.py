"""One step of training, compiled: the same for every method."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gmixout_jax as gx
from experiments.methods import form
from experiments.methods.method import Method
from experiments.training import faults, mixing
from experiments.training import gradients as grads
from experiments.training.keeper import State
from experiments.training.recipe import Recipe
from gmixout_jax import parallel

Metrics = dict[str, Any]


def make_step(
  method: Method,
  optimizer: optax.GradientTransformationExtraArgs,
  graphdef: Any,
  mesh: jax.sharding.Mesh | None = None,
  recipe: Recipe = Recipe(),  # noqa: B008 (it is frozen)
  measures_norm: bool = False,
) -> Callable[..., tuple[State, Metrics]]:
  """The pure train step, jitted; it takes over the state.

  Args:
    method: Whose loss it is.
    optimizer: From `guard`.
    graphdef: Of the model.
    mesh: To spread the batch over, if any.
    recipe: Label mixing, micro-batches and clipping. The optimizer is made.
    measures_norm: Whether the metrics have a `gradient_norm`, before clipping.

  Returns:
    A function of the parameters with the optimizer's state, a batch, all else
    that the model holds, the number of the step, and a key.
  """

  def train_step(state, batch, rest, step, key):
    params, opt_state = state
    trainable = form.trainable(params)
    key = jax.random.fold_in(key, step)
    mix_key = mixing.key_of(key) if recipe.softens else None
    if mesh is not None:  # each part of the batch has a dropout of its own
      key = jax.random.fold_in(key, parallel.index())

    def loss_fn(trainable, batch, key):
      model = form.merge(graphdef, params, trainable, rest)
      if mix_key is not None:
        classes = model.head.out_features
        batch = mixing.soften(batch, recipe, mix_key, classes)
      return method.loss(model, batch, key)

    loss, gradients = grads.value_and_grad(loss_fn, recipe.accumulate)(
      trainable, batch, key
    )
    if mesh is not None:
      loss, gradients = parallel.mean((loss, gradients))
    finite = faults.finite(loss, gradients)
    extra = {}
    if measures_norm or recipe.clip_norm is not None:
      packed = isinstance(params, gx.MixedParams)
      counted = None if packed else method.trains(params)
      norm = grads.norm(gradients, counted)
      if measures_norm:
        extra = {"gradient_norm": norm}
      if recipe.clip_norm is not None:
        gradients = grads.clip(gradients, norm, recipe.clip_norm)
    if faults.may_skip(opt_state):
      gradients = faults.spoiled(gradients, loss)
    updates, opt_state = optimizer.update(
      gradients, opt_state, trainable, value=loss
    )
    failures = faults.in_a_row(opt_state, finite)
    stepped = failures == 0 if faults.may_skip(opt_state) else True
    params = form.apply_updates(params, updates, stepped=stepped)
    moved = sum(jnp.count_nonzero(leaf) for leaf in jax.tree.leaves(updates))
    return (params, opt_state), {
      "loss": loss,
      "moved": moved,
      "finite": finite,
      "failures": failures,
      **extra,
    }

  if mesh is not None:
    compiled = parallel.data_parallel(train_step, mesh)
  else:
    compiled = jax.jit(train_step, donate_argnames="state")
  if not recipe.mixes:
    return compiled

  def paired(state, batch, *others):
    return compiled(state, mixing.with_partners(batch), *others)

  return jax.jit(paired, donate_argnames="state")
