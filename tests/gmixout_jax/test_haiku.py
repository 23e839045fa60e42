"""Tests real Haiku models, whose names and stacks are their own."""

import functools
import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import pytest

import gmixout_jax as gx
from tests.combinations import tried
from tests.gmixout_jax.foreign_models import (
  SAMPLERS,
  assert_both_forms_agree,
  assert_counts,
  assert_whole_inputs,
  settings_of,
  unit_images,
  unit_vectors,
)

pytestmark = pytest.mark.slow


def mlp(x):
  return hk.nets.MLP([12, 12, 3], activation=jnp.tanh)(x)


def convnet(x):
  x = jnp.tanh(hk.Conv2D(6, kernel_shape=3)(x))
  x = jnp.tanh(hk.Conv2D(8, kernel_shape=1)(x))
  return hk.Linear(3)(x.mean(axis=(1, 2)))


class Block(hk.Module):
  """A layer of a transformer."""

  def __call__(self, x):
    init = hk.initializers.VarianceScaling(1.0)
    y = hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)
    attention = hk.MultiHeadAttention(2, 4, w_init=init, model_size=8)
    x = x + attention(y, y, y)
    return x + hk.Linear(8)(jnp.tanh(hk.Linear(16)(x)))


def transformer(x):
  x = hk.Linear(8)(x)
  x = hk.experimental.layer_stack(2)(lambda x: Block()(x))(x)
  return hk.Linear(3)(x.mean(axis=1))


def stacks(path, leaf):
  """What one writes for `layer_stack`."""
  return {2: "io", 3: "lio", 4: "ssio"}[leaf.ndim] if path else None


MODELS = {
  "mlp": (mlp, (16, 8), "flax"),
  "convnet": (convnet, (16, 4, 4, 4), "flax"),
  "transformer": (transformer, (16, 4, 6), stacks),
}
STACK = "__layer_stack_no_per_layer/block"
AXES = {
  "mlp": {f"mlp/~/linear_{i}/w": "io" for i in range(3)},
  "convnet": {"conv2_d/w": "ssio", "conv2_d_1/w": "ssio", "linear/w": "io"},
  "transformer": {
    "linear/w": "io",
    "linear_1/w": "io",
    **{
      f"{STACK}/{name}/w": "lio"
      for name in (
        "linear",
        "linear_1",
        *(f"multi_head_attention/{n}" for n in ("query", "key", "value")),
        "multi_head_attention/linear",
      )
    },
  },
}
HEADS = {
  "mlp": "mlp/~/linear_2", "convnet": "linear", "transformer": "linear_1"
}  # fmt: skip


SOME = ("mlp",)  # Equinox's is a convolutional network, Flax's has attention


@functools.cache
def model(name):
  """Parameters, their loss, and what their axes mean."""
  function, shape, axes = MODELS[name]
  one, two, three = jax.random.split(jax.random.key(0), 3)
  inputs, targets = (
    jax.random.normal(one, shape),
    jax.random.normal(two, (16, 3)),
  )
  transformed = hk.without_apply_rng(hk.transform(function))
  with jax.numpy_rank_promotion("allow"):
    params = jax.jit(transformed.init)(three, inputs)

  def loss(params):
    with jax.numpy_rank_promotion("allow"):
      outputs = transformed.apply(params, inputs)
    return jnp.mean(jnp.square(outputs - targets))

  return params, loss, axes


@functools.cache
def result(name, sampler):
  params, loss, axes = model(name)
  return assert_both_forms_agree(loss, params, **settings_of(sampler, axes))


@pytest.mark.parametrize(
  ("name", "sampler"),
  tried(
    [*((name, "neuron") for name in MODELS), ("convnet", "uniform")],
    lambda name, sampler: sampler == "neuron" and name in SOME,
  ),
)
def test_both_forms_train_it_alike(name, sampler):
  before, after, _ = result(name, sampler)
  changed = jax.tree.map(
    lambda one, two: bool((one != two).any()), before, after
  )
  assert all(jax.tree.leaves(changed[HEADS[name]]))


@pytest.mark.parametrize(
  ("name", "sampler"),
  # Other libraries' models are tried with the other samplers.
  tried(
    itertools.product(MODELS, SAMPLERS),
    lambda name, sampler: (
      sampler
      == {"mlp": "neuron", "convnet": "uniform", "transformer": "bernoulli"}[
        name
      ]
    ),
  ),
)
def test_kept_fractions(name, sampler):
  params, _, axes = model(name)
  settings = settings_of(sampler, axes)
  masks = jax.jit(lambda p: gx.MixedParams.create(p, **settings).masks())(
    params
  )
  summary = assert_counts(params, jax.device_get(masks), **settings)
  mixed = [leaf for leaf in summary.leaves if leaf.label == "mixed"]
  assert {leaf.path: leaf.axes for leaf in mixed} == AXES[name]


def as_function(weights):
  """What Haiku's own layer makes of some weights."""
  if weights.ndim == 2:
    layer = lambda x: hk.Linear(weights.shape[1], with_bias=False, name="l")(x)
  else:
    layer = lambda x: hk.Conv2D(
      weights.shape[3], weights.shape[0], with_bias=False, name="l"
    )(x)
  transformed = hk.without_apply_rng(hk.transform(layer))
  return lambda x: transformed.apply({"l": {"w": weights}}, x)


@pytest.mark.parametrize("name", tried(MODELS, lambda name: name in SOME))
def test_neurons_are_whole_inputs(name):
  before, after, _ = result(name, "neuron")
  checked = 0
  for path in AXES[name]:
    module = path.removesuffix("/w")
    change = after[module]["w"] - before[module]["w"]
    for weights in change if module.startswith(STACK) else [change]:
      apply = as_function(weights)
      if weights.ndim == 2:
        assert_whole_inputs(apply, unit_vectors(weights.shape[0]))
      else:
        near = slice(2 - weights.shape[0] // 2, 3 + weights.shape[0] // 2)
        assert_whole_inputs(
          lambda image, apply=apply, near=near: apply(image)[near, near],
          unit_images(weights.shape[2], last=True),
        )
      checked += 1
  assert checked == {"mlp": 3, "convnet": 3, "transformer": 14}[name]


def test_a_stack_is_not_guessed():
  params, _, _ = model("transformer")
  settings = settings_of("neuron", "flax")
  named = rf"'{STACK}/linear/w' of shape \(2, 16, 8\) .* pass axes="
  with pytest.raises(ValueError, match=named):
    gx.gmixout(**settings).init(params)
  with pytest.raises(ValueError, match=named):
    gx.MixedParams.create(params, **settings)
