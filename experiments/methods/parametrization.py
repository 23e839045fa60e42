"""The form in which parameters train: all of them, or mixed and compact.

A training step is the same for both: differentiate the loss with respect to
what is trainable, and apply the optimizer's updates.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import gmixout_jax as gx

Form = Any  # nested dicts of arrays, or gx.MixedParams


def trainable(form: Form) -> Any:
  """What the optimizer trains: everything, or packed residuals."""
  return form.trainable() if isinstance(form, gx.MixedParams) else form


def training_weights(form: Form) -> Any:
  """The training weights, all of them, as the model computes with them."""
  return form.params if isinstance(form, gx.MixedParams) else form


def trains(method: Any, form: Form) -> Any:
  """Which leaves of `trainable(form)` train.

  Args:
    method: Its `trains` decides for dense parameters; a packed form holds
      nothing that is frozen.
    form: Of its parameters.
  """
  if isinstance(form, gx.MixedParams):
    return jax.tree.map(lambda leaf: True, jax.eval_shape(trainable, form))
  return method.trains(form)


def merge(graphdef: Any, form: Form, trained: Any, rest: Any) -> Any:
  """The model, with gradients that flow to `trained`, of `trainable(form)`."""
  if isinstance(form, gx.MixedParams):
    return gx.nnx.merge(graphdef, form, trained, rest)
  return nnx.merge(graphdef, trained, rest)


def apply_updates(
  form: Form, updates: Any, *, stepped: bool | jax.Array = True
) -> Form:
  """The form after a step of the optimizer, or after one that it skipped."""
  if isinstance(form, gx.MixedParams):
    return form.apply_updates(updates, stepped=stepped)
  return optax.apply_updates(form, updates)


def moved(before: Form, after: Form, updates: Any) -> Any:
  """How many weights a step changed.

  Args:
    before: The form before it.
    after: And after it.
    updates: What the optimizer returned.
  """
  changes = updates
  if isinstance(before, gx.MixedParams) and before.settings.residual == "keep":
    # Its residuals are dense, and move on while their weights are swapped.
    changes = jax.tree.map(lambda a, b: a != b, before.params, after.params)
  return jax.tree.reduce(jnp.add, jax.tree.map(jnp.count_nonzero, changes), 0)


def state_bytes(form: Form, opt_state: optax.OptState) -> int:
  """Bytes of the training state besides the training weights."""
  remembered = opt_state
  if isinstance(form, gx.MixedParams):
    remembered = opt_state, dataclasses.replace(form, params=None)
  return sum(leaf.nbytes for leaf in jax.tree.leaves(remembered))
