"""Runs of `MixedParams` and of `gmixout` on one small model, to compare."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmixout_jax as gx
from gmixout_jax._core import samplers
from tests.gmixout_jax.compiling import jit

SAMPLERS = ("stratified", "uniform", "bernoulli", "neuron")
STEPS = 10  # three episodes of three, and one step
INNER = {"adamw": optax.adamw(0.01), "sgd": optax.sgd(0.02, momentum=0.9)}

SETTINGS: dict[str, Any] = {
  "sparsity": 0.7,
  "anchor_decay": 0.4,
  "resample_every": 3,
  "key": 5,
  "target": "blocks/0",  # one matrix of three: compiling is what takes time
}
RULES = (
  (r"blocks/\d+/kernel", "mixed"),
  (r"head/", "dense"),
  (r"", "frozen"),
)

create = functools.partial(gx.MixedParams.create, **SETTINGS)
transform = functools.partial(gx.gmixout, **SETTINGS)
close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)


def make_params():
  rng = np.random.default_rng(0)

  def layer(rows, cols):
    kernel = rng.normal(size=(rows, cols)) / math.sqrt(rows)
    bias = 0.1 * rng.normal(size=cols)
    return {
      "kernel": jnp.asarray(kernel, jnp.float32),
      "bias": jnp.asarray(bias, jnp.float32),
    }

  return {"blocks": [layer(12, 20), layer(20, 16)], "head": layer(16, 3)}


def make_batches():
  """Inputs and targets of each step, [steps, batch, ...]."""
  rng = np.random.default_rng(1)
  inputs = rng.normal(size=(STEPS, 8, 12))
  targets = np.tanh(inputs[..., :3]) + rng.normal(size=3)
  return jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32)


PARAMS, BATCHES = make_params(), make_batches()
BATCH = jax.tree.map(lambda leaf: leaf[0], BATCHES)


def dense(x, layer):
  return x @ layer["kernel"] + layer["bias"][None]


def block(x, layer):
  return jnp.tanh(dense(x, layer))


def loss(params, batch, block=block):
  x, y = batch
  for layer in params["blocks"]:
    x = block(x, layer)
  return jnp.mean((dense(x, params["head"]) - y) ** 2)


def mixed_step(tx, mixed, state, batch):
  """The step that the docstring of `MixedParams` shows."""
  trainable = mixed.trainable()
  grads = jax.grad(lambda t: loss(mixed.inject(t), batch))(trainable)
  updates, state = tx.update(grads, state, trainable)
  return mixed.apply_updates(updates), state


def run(step, carry, batches):
  """What a step says after each batch, stacked; and how it all ends."""
  step, said = jit(step), []
  for batch in zip(*batches, strict=True):
    carry, one = step(carry, batch)
    said.append(one)
  return jax.tree.map(lambda *leaves: np.stack(leaves), *said), *carry


def run_mixed(mixed, tx, batches=BATCHES, step=mixed_step):
  def body(carry, batch):
    mixed, state = step(tx, *carry, batch)
    return (mixed, state), mixed.params

  # No values: the optimizers here start from zeros, and drawing takes time.
  shapes = jax.eval_shape(lambda mixed: tx.init(mixed.trainable()), mixed)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  return run(body, (mixed, zeros), batches)


def run_transform(tx, params=PARAMS):
  def body(carry, batch):
    params, state = carry
    updates, state = tx.update(jax.grad(loss)(params, batch), state, params)
    params = optax.apply_updates(params, updates)
    return (params, state), params

  return run(body, (params, tx.init(params)), BATCHES)


@functools.cache
def trajectory_of_mixed(inner="adamw", sampler="stratified", residual="reset"):
  mixed = create(PARAMS, sampler=sampler, residual=residual)
  return run_mixed(mixed, INNER[inner])


@functools.cache
def trajectory_of_gmixout(
  inner="adamw", sampler="stratified", residual="reset"
):
  tx = transform(INNER[inner], sampler=sampler, residual=residual)
  return run_transform(tx)


def assert_close(one, other):
  """To 1e-5 of the scale of each leaf."""

  def check(one, other):
    scale = np.abs(other).max()
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * scale)

  jax.tree.map(check, one, other)


def assert_same_trajectory(ours, theirs):
  """Of training weights; and it leads somewhere."""
  assert_close(ours, theirs)
  moves = np.diff(ours["blocks"][0]["kernel"], axis=0)
  assert np.abs(moves).max(axis=(1, 2)).min() > 1e-3


@jit
def shown_by_mixed(mixed):
  return mixed.eval_params(), mixed.masks()


@jit
def shown_by_accessors(state, params):
  return gx.gmixout_eval_params(state, params), gx.gmixout_masks(state, params)


def assert_same_end(mixed, params, state):
  """Weights to deploy and masks."""
  evaluated, mask = shown_by_mixed(mixed)
  expected, expected_mask = shown_by_accessors(state, params)
  assert_close(evaluated, expected)
  jax.tree.map(np.testing.assert_array_equal, mask, expected_mask)


def types(tree):
  return jax.tree.map(jax.typeof, tree)


def kept_fraction(sampler, rows, cols):
  """The s of a matrix at sparsity 0.7: 0.3 only for Bernoulli masks."""
  return {
    "stratified": round(0.3 * cols) / cols,
    "uniform": int(0.3 * rows * cols) / (rows * cols),
    "bernoulli": 0.3,
    "neuron": round(0.3 * rows) / rows,
  }[sampler]


def packed_gradient(sampler, gradient, mask, path="blocks/1/kernel", episode=1):
  """(∂L/∂W)[idx] / s by a boolean mask, for the four ways of packing."""
  rows, cols = gradient.shape
  active = gradient[mask] / kept_fraction(sampler, rows, cols)
  if sampler in ("uniform", "bernoulli"):  # packed as they were drawn
    key = jax.random.key(SETTINGS["key"])
    key = samplers.leaf_keys(key, jnp.int32(episode), [path])[0]
    layout = samplers.leaf_layout(sampler, path, gradient.shape, 0.3)
    drawn = np.asarray(layout.draw(key, jnp.zeros(gradient.shape)))
    drawn = drawn[drawn < mask.size]
    np.testing.assert_array_equal(np.sort(drawn), np.flatnonzero(mask))
    active = gradient.ravel()[drawn] / kept_fraction(sampler, rows, cols)
  if sampler == "bernoulli":  # room for eight standard deviations more
    room = math.ceil(0.3 * mask.size + 8 * math.sqrt(0.21 * mask.size))
    return np.pad(active, (0, room - active.size))
  shape = {"stratified": (rows, -1), "neuron": (-1, cols)}
  return active.reshape(shape.get(sampler, (-1,)))
