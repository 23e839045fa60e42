"""Tests `gmixout_jax/transform.py` under the transformations of JAX.

Types, scans, donation, sharding and vmap, and what is only a shape.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gmixout_jax as gx
from tests.combinations import every_value, tried
from tests.gmixout_jax.small_tree import (
  RESIDUALS,
  SAMPLERS,
  assert_equal,
  loss,
  make,
  params_of,
  types,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
  ("sampler", "residual"), every_value(SAMPLERS, RESIDUALS)
)
def test_init_on_abstract_parameters(sampler, residual):
  tx = make(optax.adam(0.1), sampler=sampler, residual=residual)
  abstract = jax.eval_shape(params_of)
  assert types(tx.init(abstract)) == types(tx.init(params_of()))
  shapes = jax.eval_shape(tx.init, abstract)
  assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(
    jnp.shape, tx.init(params_of())
  )


@pytest.mark.parametrize(
  ("dtype", "residual"),
  tried(
    itertools.product([jnp.float32, jnp.bfloat16, jnp.float16], RESIDUALS),
    lambda *case: case in {(jnp.float32, "reset"), (jnp.bfloat16, "keep")},
  ),
)
def test_updates_keep_the_dtype_and_the_anchor_is_float32(dtype, residual):
  tx = make(optax.adam(0.1), residual=residual)

  @jax.jit
  def step(params):
    state = tx.init(params)
    return tx.update(jax.grad(loss)(params), state, params)

  params = params_of(dtype)
  updates, state = step(params)
  assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(updates))
  assert all(
    leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.anchor)
  )
  evaluated = gx.gmixout_eval_params(state, params)
  assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(evaluated))


def test_a_bfloat16_anchor_does_not_stall():
  """2000 episodes of tiny steps: an anchor kept in bfloat16 would not move."""
  target = jnp.full((4, 8), 2.0, jnp.bfloat16)
  params = jnp.ones((4, 8), jnp.bfloat16)
  tx = make(
    optax.sgd(0.002), residual="keep", anchor_decay=0.999, resample_every=1,
    sparsity=0.0,
  )  # fmt: skip

  @jax.jit
  def step(carry, _):
    params, state = carry
    updates, state = tx.update(params - target, state, params)
    return (optax.apply_updates(params, updates), state), None

  (_, state), _ = jax.lax.scan(step, (params, tx.init(params)), length=2000)
  assert state.anchor.dtype == jnp.float32
  assert state.anchor.min() > 1.5


@pytest.mark.parametrize(
  ("sampler", "residual", "moments", "dtype"),
  # All samplers are traced in `test_contributed_suite.py`.
  tried(
    itertools.product(
      SAMPLERS, RESIDUALS, ["carry", "reset"], [jnp.bfloat16, jnp.float32]
    ),
    lambda *case: (
      case
      in {
        ("stratified", "reset", "carry", jnp.bfloat16),
        ("neuron", "keep", "reset", jnp.float32),
      }
    ),
  ),
)
def test_state_keeps_its_type_under_cond_and_scan(
  sampler, residual, moments, dtype
):
  schedule = optax.constant_schedule(2)
  tx = make(
    optax.adam(optax.linear_schedule(0.1, 0.0, 10)),
    sampler=sampler,
    residual=residual,
    moments=moments,
    resample_every=schedule,
  )
  params = params_of(dtype)

  def step(carry, _):
    params, state = carry
    grads = jax.grad(loss)(params)
    updates, state = jax.lax.cond(
      state.count % 2 == 0,
      lambda: tx.update(grads, state, params),
      lambda: (jax.tree.map(jnp.zeros_like, params), state),
    )
    return (optax.apply_updates(params, updates), state), None

  state = tx.init(params)
  (_, after), _ = jax.lax.scan(step, (params, state), length=3)
  assert types(after) == types(state)


@pytest.mark.parametrize(
  "residual", tried(RESIDUALS, lambda residual: residual == "reset")
)
def test_donation_and_no_recompilation_after_the_first_step(residual):
  tx = make(optax.adam(0.1), residual=residual)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state):
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  params = params_of()
  state = tx.init(params)
  for _ in range(4):
    params, state = step(params, state)
  assert step._cache_size() == 1
  # A donated key must not be the one that the next state starts from.
  params, state = step(params_of(), tx.init(params_of()))
  assert np.isfinite(params["fc"]["kernel"]).all()


@pytest.mark.parametrize(
  ("sampler", "residual", "spec"),
  tried(
    itertools.product(
      SAMPLERS, RESIDUALS, [(None, "x"), (None, None, "x"), ("x",), ()]
    ),
    lambda *case: (
      case
      in {
        ("stratified", "reset", ("x",)),
        ("uniform", "keep", (None, "x")),
        ("neuron", "keep", ()),
        # The others are tried in `test_contributed_suite.py`.
      }
    ),
  ),
)
def test_state_sharding_is_the_same_before_and_after_an_update(
  sampler, residual, spec
):
  """As Optax's own sharding test, on a mesh whose shardings are typed."""
  mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
  sharding = NamedSharding(mesh, PartitionSpec(*spec))
  tx = make(optax.adam(0.1), sampler=sampler, residual=residual)
  with jax.set_mesh(mesh):
    params = jnp.ones((8, 8, 16), jnp.float16, out_sharding=sharding)
    state = jax.jit(tx.init)(params)
    updates, after = jax.jit(tx.update)(params, state, params)
    assert types(state) == types(after)
    assert jax.typeof(updates) == jax.typeof(params)
    assert types(tx.init(params)) == types(state)
    # Each operation by itself takes seconds to compile.
    if sampler == "stratified" and spec == ("x",):
      eager = tx.update(params, state, params)
      assert types(eager) == types((updates, after))
      assert_equal(eager, (updates, after))
    gx.gmixout_eval_params(after, params)
  whole = jnp.ones((8, 8, 16), jnp.float16)
  alone, _ = jax.jit(lambda p: tx.update(p, tx.init(p), p))(whole)
  assert_equal(alone, updates)


def test_rows_sharded_over_devices_shard_the_state():
  mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec("x", None))
  params = jax.device_put(jnp.ones((16, 40)), rows)
  state = make(optax.adam(0.1)).init(params)
  assert state.anchor.sharding.is_equivalent_to(rows, 2)


def test_vmap_over_seeds_gives_each_its_own_masks():
  @jax.jit
  def first_mask(key):
    tx = make(optax.sgd(0.1), key=key)
    params = params_of()
    updates, _ = tx.update(params, tx.init(params), params)
    return updates["head"][0] != 0

  keys = jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(1), 3))
  drawn = np.asarray(jax.vmap(first_mask)(keys))
  for key, mask in zip(keys, drawn, strict=True):
    np.testing.assert_array_equal(first_mask(key), mask)
  assert not np.array_equal(drawn[0], drawn[1])
