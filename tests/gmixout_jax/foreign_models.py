"""What the tests ask of models that other libraries made."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmixout_jax as gx

SAMPLERS = ("stratified", "uniform", "bernoulli", "neuron")
SPARSITY = 0.5
STEPS = 5  # two episodes of two, and one step


def settings_of(sampler, axes):
  return {
    "key": 0, "sparsity": SPARSITY, "resample_every": 2, "sampler": sampler,
    "axes": axes,
  }  # fmt: skip


def trained(loss, params, **settings):
  """Weights after each step, by both forms, and the mask of the first."""
  tx = gx.gmixout(optax.adam(0.02), **settings)
  adam = optax.adam(0.02)

  @jax.jit
  def step(params, state, mixed, opt_state):
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    _, grads = mixed.value_and_grad(loss)()
    mixed, opt_state = mixed.apply_gradients(adam, grads, opt_state)
    return optax.apply_updates(params, updates), state, mixed, opt_state

  @jax.jit
  def start(params):
    state = tx.init(params)
    mixed = gx.MixedParams.create(params, **settings)
    masks = gx.gmixout_masks(state, params)
    return masks, (params, state, mixed, adam.init(mixed.trainable()))

  masks, carry = start(params)
  dense, packed = [params], [params]
  for _ in range(STEPS):
    carry = step(*carry)
    dense.append(carry[0])
    packed.append(carry[2].params)
  return dense, packed, jax.device_get(masks)


def assert_both_forms_agree(loss, params, **settings):
  """Also that they learn. Returns the weights before and after one step."""
  dense, packed, masks = trained(loss, params, **settings)
  for one, other in zip(dense, packed, strict=True):
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
      one,
      other,
    )
  assert loss(dense[-1]) < 0.98 * loss(params)
  return dense[0], dense[1], masks


def assert_counts(params, masks, **settings):
  """Of every mixed leaf: the law, the summary, and what was drawn."""
  by_path = jax.tree_util.tree_leaves_with_path(masks)
  summary = gx.gmixout_summary(
    params, **{name: s for name, s in settings.items() if name != "key"}
  )
  mixed = 0
  for leaf, (_, mask) in zip(summary.leaves, by_path, strict=True):
    size, active = math.prod(leaf.shape), int(mask.sum())
    if leaf.label == "dense":
      assert active == size
      continue
    mixed += 1
    wanted, one = (1 - SPARSITY) * size, 1
    if settings["sampler"] == "bernoulli":
      assert abs(active - wanted) < 5 * math.sqrt(wanted * SPARSITY)
      continue
    if settings["sampler"] == "neuron":
      assert leaf.axes is not None
      inputs = math.prod(
        n for n, c in zip(leaf.shape, leaf.axes, strict=True) if c in "il"
      )
      layers = math.prod(
        n for n, c in zip(leaf.shape, leaf.axes, strict=True) if c == "l"
      )
      one = layers * size // inputs
    assert abs(active - wanted) <= max(0.1 * wanted, one)
    assert active == leaf.active
    assert active < size
  assert mixed
  return summary


def assert_whole_inputs(apply, inputs):
  """A layer whose weights are an update answers to whole inputs.

  Args:
    apply: The layer, linear and without its bias, with the update of its
      weights in place of them.
    inputs: One array per input, zero but there.
  """
  answers = np.stack([np.abs(apply(one)) for one in inputs])
  answers = answers.reshape(len(inputs), -1).astype(np.float64)
  active = answers.any(axis=1)
  assert active.sum() == max(1, round(len(inputs) * (1 - SPARSITY)))
  # An update that reached only a part of an input's weights would leave zeros.
  np.testing.assert_array_equal((answers > 0).all(axis=1), active)


def unit_vectors(count):
  return jnp.eye(count)


def unit_images(channels, size=5, last=False):
  """One image per channel, dark but for one pixel in the middle of it.

  The response of a convolution is then its kernel, all taps of it.
  """
  images = jnp.zeros((channels, channels, size, size))
  each = jnp.arange(channels)
  images = images.at[each, each, size // 2, size // 2].set(1.0)
  return images.transpose(0, 2, 3, 1) if last else images
