"""One step of training, compiled: the same for every method."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.methods import form
from experiments.methods.method import Method
from experiments.training import faults
from experiments.training.keeper import State
from gmixout_jax import parallel

Metrics = dict[str, Any]


def make_step(
  method: Method,
  optimizer: optax.GradientTransformationExtraArgs,
  graphdef: Any,
  mesh: jax.sharding.Mesh | None = None,
) -> Callable[..., tuple[State, Metrics]]:
  """The pure train step, jitted; it takes over the state.

  Args:
    method: Whose loss it is.
    optimizer: From `guard`.
    graphdef: Of the model.
    mesh: To spread the batch over, if any.

  Returns:
    A function of the parameters with the optimizer's state, a batch, all else
    that the model holds, the number of the step, and a key.
  """

  def train_step(state, batch, rest, step, key):
    params, opt_state = state
    trainable = form.trainable(params)
    key = jax.random.fold_in(key, step)
    if mesh is not None:  # each part of the batch has a dropout of its own
      key = jax.random.fold_in(key, parallel.index())

    def loss_fn(trainable):
      model = form.merge(graphdef, params, trainable, rest)
      return method.loss(model, batch, key)

    loss, gradients = jax.value_and_grad(loss_fn)(trainable)
    if mesh is not None:
      loss, gradients = parallel.mean((loss, gradients))
    finite = faults.finite(loss, gradients)
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
    }

  if mesh is not None:
    return parallel.data_parallel(train_step, mesh)
  return jax.jit(train_step, donate_argnames="state")
