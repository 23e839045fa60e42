"""Leaves that are no ordinary matrices: infinite, empty, wide, narrow."""

import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from gmixout_jax import labels

pytestmark = pytest.mark.slow

CAUSAL = jnp.where(jnp.tril(jnp.ones((20, 20))) > 0, 0.0, -jnp.inf)


def attention(params):
  scores = params["kernel"] + jax.lax.stop_gradient(params["mask"])
  return jnp.sum(jax.nn.softmax(scores) ** 2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("residual", ["reset", "keep"])
def test_infinities_stay_in_the_dense_form(residual, dtype):
  params = {"kernel": jnp.ones((20, 20), dtype), "mask": CAUSAL.astype(dtype)}
  tx = gx.gmixout(optax.adam(0.1), key=0, resample_every=2, residual=residual)
  state = tx.init(params)
  for _ in range(3):
    grads = jax.grad(attention)(params)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  for weights in (params, gx.gmixout_eval_params(state, params)):
    np.testing.assert_array_equal(weights["mask"], CAUSAL.astype(dtype))
    assert np.isfinite(weights["kernel"].astype(jnp.float32)).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
  "tx", [optax.adamw(0.1), gx.FusedAdamW(learning_rate=0.1)]
)
def test_infinities_stay_in_the_packed_form(tx, dtype):
  params = {"kernel": jnp.ones((20, 20), dtype), "mask": CAUSAL.astype(dtype)}
  mixed = gx.MixedParams.create(params, key=0, resample_every=2)
  opt_state = tx.init(mixed.trainable())
  for _ in range(3):
    _, grads = mixed.value_and_grad(attention)()
    mixed, opt_state = mixed.apply_gradients(tx, grads, opt_state)
  for weights in (mixed.params, mixed.eval_params()):
    np.testing.assert_array_equal(weights["mask"], CAUSAL.astype(dtype))
    assert np.isfinite(weights["kernel"].astype(jnp.float32)).all()


def test_what_has_no_entries_is_left_alone():
  params = {"kernel": jnp.ones((20, 4)), "none": jnp.ones((0, 20))}
  assert labels.select_leaves(None, params) == [True, False]
  for sampler in ("stratified", "neuron"):
    gx.gmixout(optax.sgd(0.1), key=0, sampler=sampler).init(params)
  with pytest.raises(ValueError, match="selects none of the 2 leaves"):
    gx.gmixout(optax.sgd(0.1), key=0, target="none").init(params)


def test_integers_are_frozen_whatever_a_rule_says():
  params = {"fc": {"kernel": jnp.ones((4, 20))}, "count": jnp.int32(0)}
  mixed = gx.MixedParams.create(
    params, key=0, target=(("kernel", "mixed"), ("", "dense"))
  )
  loss = lambda params: jnp.sum(params["fc"]["kernel"] ** 2)
  _, grads = mixed.value_and_grad(loss)()
  assert grads["count"] == optax.MaskedNode()


def test_numpys_float64_is_held_as_jax_holds_it():
  params = {"kernel": np.linspace(0.0, 1.0, 320).reshape(8, 40)}
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    tx = gx.gmixout(optax.sgd(0.1), key=0)
    state = tx.init(params)
    tx.update(jax.tree.map(jnp.ones_like, params), state, params)
    mixed = gx.MixedParams.create(params, key=0)
    mixed.value_and_grad(lambda params: jnp.sum(params["kernel"]))()
  assert state.anchor["kernel"].dtype == jnp.float32


@pytest.mark.parametrize(
  "dtype", ["float8_e4m3fn", "float8_e4m3b11fnuz", "float8_e5m2", "bfloat16"]
)
@pytest.mark.parametrize("residual", ["reset", "keep"])
def test_narrow_weights_become_the_nearest_that_there_are(dtype, residual):
  """ml_dtypes rounds in their place; its largest numbers are there, too."""
  largest = float(ml_dtypes.finfo(dtype).max)
  values = np.linspace(-largest, largest, 40).reshape(2, 20).astype(dtype)
  params = {"kernel": jnp.asarray(values)}
  tx = gx.gmixout(
    optax.sgd(1.0), key=0, rescale=False, sparsity=0.5, residual=residual
  )
  state = tx.init(params)
  step = 0.1 * jnp.asarray(values, jnp.float32)
  updates, state = jax.jit(tx.update)({"kernel": step}, state, params)
  after = np.float32(params["kernel"]) + np.float32(updates["kernel"])
  mask = np.asarray(gx.gmixout_masks(state, params)["kernel"])
  exact = np.float32(values) - 0.1 * np.float32(values)
  wanted = np.where(mask, exact.astype(dtype).astype(np.float32), values)
  np.testing.assert_array_equal(after, wanted.astype(np.float32))
