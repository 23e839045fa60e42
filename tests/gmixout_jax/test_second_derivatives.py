"""Gradients of gradients, as of a penalty on them, reach packed residuals.

The reference is `jax.grad` of the dense weights, at the active entries.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import gmixout_jax as gx

pytestmark = pytest.mark.slow

X = jax.random.normal(jax.random.key(1), (4, 20))
SAMPLERS = ["stratified", "neuron"]


def penalty(apply, params):
  """The mean square of the derivative with respect to the input."""
  slopes = jax.vmap(jax.grad(lambda x: apply(params, x[None])[0, 0]))(X)
  return jnp.mean(jnp.sum(slopes**2, -1))


def assert_active(packed, dense, mask):
  np.testing.assert_allclose(
    np.sort(packed.ravel()), np.sort(dense[mask]), rtol=1e-4, atol=1e-7
  )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_of_an_nnx_model(sampler):
  model = nnx.Sequential(
    nnx.Linear(20, 40, rngs=nnx.Rngs(0)),
    jnp.tanh,
    nnx.Linear(40, 1, rngs=nnx.Rngs(1)),
  )
  loss = lambda model: penalty(lambda model, x: model(x), model)
  optimizer = gx.nnx.MixedOptimizer(
    model, optax.sgd(1.0), key=0, sampler=sampler, sparsity=0.5, rescale=False
  )
  value, packed = optimizer.value_and_grad(loss)(model)
  expected, dense = nnx.value_and_grad(loss)(model)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  masks = optimizer._mixed(nnx.state(model, nnx.Param)).masks()
  for layer in (0, 2):
    kernel = lambda tree, layer=layer: tree["layers"][layer]["kernel"]
    assert_active(
      np.asarray(kernel(packed)),
      np.asarray(kernel(dense)[...]),
      np.asarray(kernel(masks)),
    )


class Network(linen.Module):
  @linen.compact
  def __call__(self, x):
    dense = functools.partial(linen.Dense, dot_general_cls=gx.linen.TappedDot)
    return dense(1)(jnp.tanh(dense(40)(x)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_of_a_linen_module(sampler):
  params = Network().init(jax.random.key(0), X)["params"]
  mixed = gx.MixedParams.create(
    params, key=0, sampler=sampler, sparsity=0.5, rescale=False
  )
  dense = jax.grad(
    lambda params: penalty(
      lambda params, x: Network().apply({"params": params}, x), params
    )
  )(params)
  packed = jax.grad(
    lambda trainable: penalty(
      Network().apply, gx.linen.variables(mixed, trainable)
    )
  )(mixed.trainable())
  for layer in dense:
    kernel = lambda tree, layer=layer: np.asarray(tree[layer]["kernel"])
    assert_active(kernel(packed), kernel(dense), kernel(mixed.masks()))


@pytest.mark.parametrize("residual", ["reset", "keep"])
def test_of_any_weights_in_both_orders(residual):
  """f = Σ W³, so f'' = 6 W, and each Δ counts 1/s times, twice."""
  mixed = gx.MixedParams.create(
    {"kernel": jnp.linspace(1.0, 2.0, 40).reshape(4, 10)},
    key=0,
    sparsity=0.5,
    residual=residual,
  )
  f = lambda trainable: jnp.sum(mixed.inject(trainable)["kernel"] ** 3)
  trainable = mixed.trainable()
  ones = jax.tree.map(jnp.ones_like, trainable)
  _, forward = jax.jvp(jax.grad(f), (trainable,), (ones,))
  backward = jax.grad(
    lambda trainable: sum(map(jnp.sum, jax.tree.leaves(jax.grad(f)(trainable))))
  )(trainable)
  wanted = np.where(
    mixed.masks()["kernel"], 6 * mixed.params["kernel"] / 0.5**2, 0
  )
  for found in (forward, backward):
    flat = np.asarray(found["kernel"]).ravel()
    np.testing.assert_allclose(
      np.sort(flat[flat != 0]), np.sort(wanted[wanted != 0]), rtol=1e-5
    )


def test_with_respect_to_the_weights_nothing_counts_twice():
  """A step of the packed form, and of plain SGD on the same entries."""
  params = {"kernel": jnp.linspace(0.5, 1.0, 40).reshape(4, 10)}
  loss = lambda params: jnp.sum(params["kernel"] ** 3)
  tx = optax.sgd(0.01)
  settings = dict(key=0, sparsity=0.5, resample_every=5, rescale=False)
  mixed = gx.MixedParams.create(params, **settings)
  opt_state = tx.init(mixed.trainable())
  _, grads = mixed.value_and_grad(loss)()
  mixed, opt_state = mixed.apply_gradients(tx, grads, opt_state)
  mask = mixed.masks()["kernel"]

  def after(kernel):  # in mid-episode, where Δ is read off the weights
    held = mixed.replace(params={"kernel": kernel})
    _, grads = held.value_and_grad(loss)()
    stepped, _ = held.apply_gradients(tx, grads, opt_state)
    return jnp.sum(stepped.params["kernel"] ** 2)

  def plainly(kernel):
    return jnp.sum((kernel - jnp.where(mask, 0.01 * 3 * kernel**2, 0)) ** 2)

  kernel = mixed.params["kernel"]
  np.testing.assert_allclose(
    jax.grad(after)(kernel), jax.grad(plainly)(kernel), rtol=1e-4
  )
