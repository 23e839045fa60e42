"""Tests `gmixout_jax/mixed_params.py` in JAX: donated, abstract, saved."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from orbax.checkpoint import v1 as ocp

from tests.gmixout_jax.mixed_runs import (
  BATCH,
  BATCHES,
  INNER,
  PARAMS,
  SAMPLERS,
  assert_close,
  create,
  jit,
  make_params,
  mixed_step,
  trajectory_of_gmixout,
  types,
)

pytestmark = pytest.mark.slow


def test_donated_in_a_loop():
  """A donated key or count must not be what another state starts from."""
  tx, traces = INNER["adamw"], []

  @functools.partial(jit, donate_argnums=(0, 1))
  def step(mixed, state, batch):
    traces.append(None)
    return mixed_step(tx, mixed, state, batch)

  @jit
  def init(mixed):
    return tx.init(mixed.trainable())

  for _ in range(2):
    mixed = create(jax.tree.map(jnp.copy, PARAMS))
    state = init(mixed)
    for batch in zip(*BATCHES, strict=True):
      given = mixed
      mixed, state = step(mixed, state, batch)
      assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert_close(mixed.params, trajectory_of_gmixout()[1])
  assert len(traces) == 1


@pytest.mark.parametrize(
  ("sampler", "residual", "dtype"),
  [
    *((sampler, "reset", jnp.float32) for sampler in SAMPLERS),
    ("stratified", "keep", jnp.float32),
    ("neuron", "reset", jnp.bfloat16),
    ("uniform", "keep", jnp.bfloat16),
  ],
)
def test_made_of_shapes_alone(sampler, residual, dtype):
  make = functools.partial(
    create,
    sampler=sampler,
    residual=residual,
    resample_every=optax.constant_schedule(2),
  )
  params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
  abstract = jax.eval_shape(lambda: params)
  mixed = make(params)
  assert types(make(abstract).anchor) == types(mixed.anchor)
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  shown = jax.eval_shape(make, abstract)
  assert shapes(shown) == shapes(mixed)
  # A step keeps all types, so that the result can go where its input came
  # from: a scan, a checkpoint, a donated buffer.
  tx = optax.adam(0.01)
  state = jax.eval_shape(lambda mixed: tx.init(mixed.trainable()), shown)
  step = functools.partial(mixed_step, tx)
  assert shapes(jax.eval_shape(step, shown, state, BATCH)) == shapes(
    (shown, state)
  )


@pytest.fixture(scope="module")
def interrupted():
  """What there is to save in mid-episode, and a function that trains on."""
  # bfloat16, rules and a schedule: all that a state may hold.
  params = make_params()
  layer = params["blocks"][0]
  layer["kernel"] = layer["kernel"].astype(jnp.bfloat16)
  rules = (("blocks/0/kernel", "mixed"), ("head", "dense"), ("", "frozen"))

  @jit
  def train(saved):
    def body(carry, batch):
      mixed, state = carry
      return mixed_step(INNER["adamw"], mixed, state, batch), None

    (mixed, state), _ = jax.lax.scan(body, saved, BATCHES)
    return (mixed, state), mixed.masks()

  @jit
  def start(params):
    mixed = create(params, target=rules, resample_every=lambda episode: 4)
    return mixed, INNER["adamw"].init(mixed.trainable())

  saved, _ = train(start(params))
  return saved, train


def assert_resumes(train, saved, restored):
  """Bit for bit; frozen leaves are still told from dense ones."""
  assert jax.tree.structure(restored) == jax.tree.structure(saved)
  expected, (resumed, mask) = train(saved), train(restored)
  jax.tree.map(np.testing.assert_array_equal, (resumed, mask), expected)
  moved = resumed[0].params["blocks"][0]["kernel"]
  assert not np.array_equal(moved, saved[0].params["blocks"][0]["kernel"])
  assert mask["head"]["bias"].all()
  assert not mask["blocks"][0]["bias"].any()


def test_flax_serialization(interrupted):
  saved, train = interrupted
  assert int(saved[0].scheduled.episode) == 2
  template = jax.tree.map(jnp.zeros_like, saved)
  data = serialization.to_bytes(saved)
  assert_resumes(train, saved, serialization.from_bytes(template, data))


def test_orbax(interrupted, tmp_path):
  saved, train = interrupted
  ocp.save(tmp_path / "checkpoint", {"train": saved})
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    saved,
  )
  restored = ocp.load(tmp_path / "checkpoint", {"train": abstract})
  assert_resumes(train, saved, restored["train"])
