"""Tests `mixed_params.py` and `_core/packed_grad.py`: packed gradients.

The reference is plain `jax.grad` with respect to the dense weights.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.combinations import tried
from tests.gmixout_jax.mixed_runs import (
  BATCH,
  BATCHES,
  INNER,
  PARAMS,
  SAMPLERS,
  STEPS,
  assert_same_trajectory,
  block,
  close,
  create,
  jit,
  kept_fraction,
  loss,
  packed_gradient,
  run_mixed,
  trajectory_of_gmixout,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
  ("sampler", "residual"),
  # Bernoulli's are tried in a whole step, by `value_and_grad`.
  tried(
    [*((s, "reset") for s in SAMPLERS), ("stratified", "keep")],
    lambda sampler, _: sampler != "bernoulli",
  ),
)
def test_gradients_are_the_active_entries_of_the_dense_one(sampler, residual):
  with jax.enable_x64(True):
    double = functools.partial(jnp.asarray, dtype=jnp.float64)
    params, batch = jax.tree.map(double, (PARAMS, BATCH))

    @jit
    def gradients(params, batch):
      # A matrix whose s is not 0.3, in the second episode.
      mixed = create(
        params, sampler=sampler, residual=residual, target="blocks/1"
      )
      mixed = dataclasses.replace(mixed, count=jnp.int32(4))
      of_mixed = lambda t: loss(mixed.inject(t), batch)
      packed = jax.grad(of_mixed)(mixed.trainable())
      return packed, jax.grad(loss)(params, batch), mixed.masks()

    packed, expected, mask = jax.device_get(gradients(params, batch))

  kernel = expected["blocks"][1]["kernel"]
  active = mask["blocks"][1]["kernel"]
  assert 0.2 < active.mean() < 0.4
  if residual == "keep":
    kernel = np.where(active, kernel / kept_fraction(sampler, 20, 16), 0)
  else:
    kernel = packed_gradient(sampler, kernel, active)
  expected["blocks"][1]["kernel"] = kernel
  exactly = functools.partial(np.testing.assert_allclose, rtol=1e-10)
  jax.tree.map(exactly, packed, expected)


def test_gradients_through_rematerialized_blocks():
  """`jax.checkpoint` may see the weights before or after their taps."""
  mixed = create(PARAMS)
  remat = functools.partial(loss, block=jax.checkpoint(block))

  def gradients(loss, wrap=lambda function: function):
    of_mixed = wrap(lambda t: loss(mixed.inject(t), BATCH))
    traced = jit(lambda: jax.grad(of_mixed)(mixed.trainable())).trace()
    return traced.lower().compile()(), "remat" in str(traced.jaxpr)

  expected, plain_is_remat = gradients(loss)
  blocks, blocks_are_remat = gradients(remat)
  whole, whole_is_remat = gradients(loss, jax.checkpoint)
  assert (plain_is_remat, blocks_are_remat, whole_is_remat) == (0, 1, 1)
  jax.tree.map(close, blocks, expected)
  jax.tree.map(close, whole, expected)


def halves(batches):
  """Each batch in two: [steps, 2, batch / 2, ...]."""
  cut = lambda leaf: leaf.reshape(len(leaf), 2, -1, leaf.shape[-1])
  return jax.tree.map(cut, batches)


def test_added_gradients_are_those_of_the_whole_batch():

  def step(tx, mixed, state, micro_batches):
    trainable = mixed.trainable()

    def add(total, batch):
      of_mixed = lambda t: loss(mixed.inject(t), batch)
      return jax.tree.map(jnp.add, total, jax.grad(of_mixed)(trainable)), None

    zeros = jax.tree.map(jnp.zeros_like, trainable)
    total, _ = jax.lax.scan(add, zeros, micro_batches)
    grads = jax.tree.map(lambda leaf: leaf / 2, total)
    updates, state = tx.update(grads, state, trainable)
    return mixed.apply_updates(updates), state

  ours, mixed, _ = run_mixed(
    create(PARAMS), INNER["adamw"], halves(BATCHES), step
  )
  assert_same_trajectory(ours, trajectory_of_gmixout()[0])
  assert int(mixed.count) == STEPS


@pytest.mark.parametrize(
  "scheduled", tried([False, True], lambda scheduled: not scheduled)
)
def test_multi_steps_are_one_step_of_an_episode(scheduled):

  def step(multi, mixed, state, batch):
    trainable = mixed.trainable()
    grads = jax.grad(lambda t: loss(mixed.inject(t), batch))(trainable)
    updates, state = multi.update(grads, state, trainable)
    stepped = multi.has_updated(state)
    return mixed.apply_updates(updates, stepped=stepped), state

  # A schedule of what the constant period is: the same trajectory.
  period = {"resample_every": lambda episode: 3} if scheduled else {}
  flat = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])
  micro_batches = jax.tree.map(flat, halves(BATCHES))
  mixed, multi = create(PARAMS, **period), optax.MultiSteps(INNER["adamw"], 2)
  trained, mixed, _ = run_mixed(mixed, multi, micro_batches, step)
  assert int(mixed.count) == STEPS
  after_steps = jax.tree.map(lambda leaf: leaf[1::2], trained)
  assert_same_trajectory(after_steps, trajectory_of_gmixout()[0])
  # Between optimizer steps nothing moves, nor is an episode ended.
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.tree.map(lambda leaf: leaf[2::2], trained),
    jax.tree.map(lambda leaf: leaf[1:-1:2], trained),
  )
