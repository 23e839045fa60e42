"""Tests real Equinox models, whose weights are ``[out, in]``."""

import functools
import itertools
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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

LAYERS = (eqx.nn.Linear, eqx.nn.Conv2d)


class ConvNet(eqx.Module):
  conv: eqx.nn.Conv2d
  mix: eqx.nn.Conv2d
  head: eqx.nn.Linear

  def __init__(self, key):
    one, two, three = jax.random.split(key, 3)
    self.conv = eqx.nn.Conv2d(4, 6, kernel_size=3, padding=1, key=one)
    self.mix = eqx.nn.Conv2d(6, 8, kernel_size=1, key=two)
    self.head = eqx.nn.Linear(8, 3, key=three)

  def __call__(self, x):
    x = jax.nn.tanh(self.mix(jax.nn.tanh(self.conv(x))))
    return self.head(x.mean(axis=(1, 2)))


class Block(eqx.Module):
  norm1: eqx.nn.LayerNorm
  attention: eqx.nn.MultiheadAttention
  norm2: eqx.nn.LayerNorm
  mlp: eqx.nn.MLP

  def __init__(self, key):
    one, two = jax.random.split(key)
    self.norm1, self.norm2 = eqx.nn.LayerNorm(8), eqx.nn.LayerNorm(8)
    self.attention = eqx.nn.MultiheadAttention(
      2, 8, use_query_bias=True, use_output_bias=True, key=one
    )
    self.mlp = eqx.nn.MLP(8, 8, 16, 1, activation=jax.nn.tanh, key=two)

  def __call__(self, x):
    y = jax.vmap(self.norm1)(x)
    x = x + self.attention(y, y, y)
    return x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))


class ViT(eqx.Module):
  patch_embed: eqx.nn.Conv2d
  cls_token: jax.Array
  pos_embed: jax.Array
  blocks: list[Block]
  norm: eqx.nn.LayerNorm
  head: eqx.nn.Linear

  def __init__(self, key):
    one, two, three, four = jax.random.split(key, 4)
    self.patch_embed = eqx.nn.Conv2d(4, 8, kernel_size=2, stride=2, key=one)
    self.cls_token = jnp.zeros((1, 8))
    self.pos_embed = 0.1 * jax.random.normal(two, (5, 8))
    self.blocks = [Block(three)]
    self.norm = eqx.nn.LayerNorm(8)
    self.head = eqx.nn.Linear(8, 3, key=four)

  def __call__(self, x):
    x = self.patch_embed(x).reshape(8, -1).T
    x = jnp.concatenate([self.cls_token, x]) + self.pos_embed
    for block in self.blocks:
      x = block(x)
    return self.head(self.norm(x[0]))


class Stacked(eqx.Module):
  """Layers of one stack, as `eqx.filter_vmap` makes them, under a scan."""

  blocks: eqx.nn.Linear
  head: eqx.nn.Linear

  def __init__(self, key):
    make = eqx.filter_vmap(lambda key: eqx.nn.Linear(8, 8, key=key))
    one, two = jax.random.split(key)
    self.blocks = make(jax.random.split(one, 3))
    self.head = eqx.nn.Linear(8, 3, key=two)

  def __call__(self, x):
    arrays, static = eqx.partition(self.blocks, eqx.is_array)

    def body(x, arrays):
      return jax.nn.tanh(eqx.combine(arrays, static)(x)), None

    x, _ = jax.lax.scan(body, x, arrays)
    return self.head(x)


def stacks(path, leaf):
  """What one writes for `Stacked`: torch's letters, and the layers'."""
  return {2: "oi", 3: "loi"}[leaf.ndim] if path.startswith("blocks") else "oi"


MODELS = {
  "mlp": (
    lambda key: eqx.nn.MLP(8, 3, 12, 2, activation=jax.nn.tanh, key=key),
    (8,),
    "torch",
  ),
  "convnet": (ConvNet, (4, 4, 4), "torch"),
  "vit": (ViT, (4, 4, 4), "torch"),
  "stacked": (Stacked, (8,), stacks),
}
AXES = {
  "mlp": {f"layers/{i}/weight": "oi" for i in range(3)},
  "convnet": {
    "conv/weight": "oiss", "mix/weight": "oiss", "head/weight": "oi"
  },
  "vit": {
    "head/weight": "oi",
    **{
      f"blocks/0/{name}/weight": "oi"
      for name in (
        *(f"attention/{p}_proj" for p in ("query", "key", "value", "output")),
        "mlp/layers/0",
        "mlp/layers/1",
      )
    },
  },
  "stacked": {"blocks/weight": "loi", "head/weight": "oi"},
}  # fmt: skip


SOME = ("convnet",)  # two kinds of layers; Flax's has attention


@functools.cache
def model(name):
  """Parameters, loss of parameters, the rest of the model, and its axes."""
  make, shape, axes = MODELS[name]
  params, static = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)
  one, two = jax.random.split(jax.random.key(1))
  inputs = jax.random.normal(one, (16, *shape))
  targets = jax.random.normal(two, (16, 3))

  def loss(params):
    outputs = jax.vmap(eqx.combine(params, static))(inputs)
    return jnp.mean(jnp.square(outputs - targets))

  return params, loss, static, axes


def layers_of(tree):
  is_layer = lambda node: isinstance(node, LAYERS)
  nodes = jax.tree.leaves(tree, is_leaf=is_layer)
  return [node for node in nodes if is_layer(node)]


@functools.cache
def result(name, sampler):
  params, loss, _, axes = model(name)
  return assert_both_forms_agree(loss, params, **settings_of(sampler, axes))


@pytest.mark.parametrize(
  ("name", "sampler"),
  tried(
    [
      *((name, "neuron") for name in MODELS),
      ("convnet", "stratified"),
      ("stacked", "bernoulli"),
    ],
    lambda name, sampler: sampler == "neuron" and name in SOME,
  ),
)
def test_both_forms_train_it_alike(name, sampler):
  before, after, _ = result(name, sampler)
  assert any(
    not np.array_equal(one, other)
    for one, other in zip(*map(jax.tree.leaves, (before, after)), strict=True)
  )


@pytest.mark.parametrize(
  ("name", "sampler"),
  # Other libraries' models are tried with the other samplers.
  tried(
    itertools.product(MODELS, SAMPLERS),
    lambda name, sampler: (
      sampler == ("stratified" if name == "vit" else "neuron")
    ),
  ),
)
def test_kept_fractions(name, sampler):
  params, _, _, axes = model(name)
  settings = settings_of(sampler, axes)
  masks = jax.jit(lambda p: gx.MixedParams.create(p, **settings).masks())(
    params
  )
  summary = assert_counts(params, jax.device_get(masks), **settings)
  found = {
    leaf.path: leaf.axes for leaf in summary.leaves if leaf.label == "mixed"
  }
  assert found == AXES[name]


def linear_part(layer, weight):
  """The layer as a function without bias, with other weights."""
  bare = eqx.tree_at(lambda layer: layer.weight, layer, weight)
  if layer.bias is None:
    return bare
  zeros = jnp.zeros_like(layer.bias)
  return eqx.tree_at(lambda layer: layer.bias, bare, zeros)


def assert_answers_to_whole_inputs(layer, weight):
  apply = linear_part(layer, weight)
  if isinstance(layer, eqx.nn.Linear):
    assert_whole_inputs(apply, unit_vectors(layer.in_features))
    return
  # Of an image of one pixel, what its neighbours see.
  near = slice(2 - weight.shape[-1] // 2, 3 + weight.shape[-1] // 2)
  assert_whole_inputs(
    lambda image: apply(image)[:, near, near], unit_images(layer.in_channels)
  )


@pytest.mark.parametrize("name", tried(MODELS, lambda name: name in SOME))
def test_neurons_are_whole_inputs(name):
  """Told by the layers' own functions; nothing here asks for an axis."""
  _, _, static, _ = model(name)
  before, after, _ = result(name, "neuron")
  change = jax.tree.map(lambda one, other: other - one, before, after)
  layers, changes = (layers_of(eqx.combine(t, static)) for t in (after, change))
  if name == "vit":  # the embedding of patches is passed over
    layers, changes = layers[1:], changes[1:]
  if name == "stacked":
    stack, changed = layers.pop(0), changes.pop(0)
    arrays, rest = eqx.partition(stack, eqx.is_array)
    for i, weight in enumerate(changed.weight):
      layer = eqx.combine(jax.tree.map(operator.itemgetter(i), arrays), rest)
      assert_answers_to_whole_inputs(layer, weight)
  for layer, changed in zip(layers, changes, strict=True):
    assert_answers_to_whole_inputs(layer, changed.weight)


@pytest.mark.parametrize("axes", ["torch", "flax", lambda path, leaf: None])
def test_unknown_axes_are_an_error_that_names_the_leaf(axes):
  params, _, _, _ = model("stacked")
  settings = settings_of("neuron", axes)
  named = r"'(blocks|head)/weight' of shape .* pass axes="
  with pytest.raises(ValueError, match=named):
    gx.gmixout(**settings).init(params)
  with pytest.raises(ValueError, match=named):
    gx.MixedParams.create(params, **settings)


def test_letters_that_do_not_fit_are_an_error_that_names_the_leaf():
  params, _, _, _ = model("stacked")
  settings = settings_of("neuron", lambda path, leaf: "oi")
  with pytest.raises(ValueError, match=r"'blocks/weight' .*got 'oi'"):
    gx.gmixout(**settings).init(params)
