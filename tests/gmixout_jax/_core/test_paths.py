"""Tests `gmixout_jax/_core/paths.py`: one leaf, one path, in whatever box."""

import dataclasses

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.core import freeze, meta

import gmixout_jax as gx
from gmixout_jax._core import paths


def names(tree, **options):
  return [path for path, _ in paths.named_leaves(tree, **options)]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Attention:
  query: jax.Array
  value: jax.Array  # must not be taken for a box's value


class Blocks(nn.Module):
  """Two scanned blocks and a layer after them, in boxes if asked for."""

  box: str = ""

  @nn.compact
  def __call__(self, x):
    boxes = {
      "": lambda init, names: init,
      "partitioned": nn.with_partitioning,
      "logical": nn.with_logical_partitioning,
    }
    init = boxes[self.box](nn.initializers.ones, (None, "model"))
    scanned = nn.scan(
      lambda layer, carry, _: (layer(carry), None),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      length=2,
      metadata_params={nn.PARTITION_NAME: "layers"},
    )
    x, _ = scanned(nn.Dense(4, kernel_init=init, name="layers"), x, None)
    return nn.Dense(3, kernel_init=init, name="head")(x)


PLAIN = ["head/bias", "head/kernel", "layers/bias", "layers/kernel"]


@pytest.mark.parametrize("box", ["", "partitioned", "logical"])
@pytest.mark.parametrize("form", [lambda tree: tree, freeze])
def test_linen_boxes_are_no_part_of_a_path(box, form):
  params = Blocks(box).init(jax.random.key(0), jnp.ones((2, 4)))["params"]
  boxes = jax.tree.leaves(
    params, is_leaf=lambda x: isinstance(x, nn.Partitioned)
  )
  assert sum(isinstance(leaf, nn.Partitioned) for leaf in boxes) == (
    2 if box else 0
  )
  named = paths.named_leaves(form(params))
  assert [path for path, _ in named] == PLAIN
  for (_, leaf), own in zip(named, jax.tree.leaves(params), strict=True):
    assert leaf is own
  assert names(meta.unbox(params)) == PLAIN


def test_any_box_of_linen_s_kind_is_none():
  @jax.tree_util.register_dataclass
  @dataclasses.dataclass
  class Replicated(meta.AxisMetadata):
    array: jax.Array

    def unbox(self):
      return self.array

    def replace_boxed(self, val):
      return Replicated(val)

    def add_axis(self, index, params):
      return self

    def remove_axis(self, index, params):
      return self

  assert names({"fc": {"kernel": Replicated(jnp.ones(1))}}) == ["fc/kernel"]
  # Nor is a box in a box.
  boxed = nnx.Param(Replicated(jnp.ones(1)))
  assert names([boxed]) == ["0"]


def test_paths_are_the_same_with_and_without_nnx_variables():
  class Model(nnx.Module):
    def __init__(self, rngs):
      init = nnx.with_partitioning(nnx.initializers.ones, (None, "model"))
      self.blocks = nnx.List([nnx.Linear(2, 3, kernel_init=init, rngs=rngs)])
      self.table = nnx.Param({"a": jnp.ones(1), "b": jnp.ones(2)})

  with nnx.use_eager_sharding(False):  # there is no mesh
    state = nnx.state(Model(nnx.Rngs(0)), nnx.Param)
  expected = ["blocks/0/bias", "blocks/0/kernel", "table/a", "table/b"]
  assert names(state) == expected
  assert names(nnx.as_pure(state)) == expected
  assert names(nnx.to_pure_dict(state)) == expected
  assert names({"attention": Attention(jnp.ones(1), jnp.ones(1))}) == [
    "attention/query",
    "attention/value",
  ]


def test_leaves_are_those_of_jax_in_their_order():
  state = nnx.state(nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0)))
  found = [leaf for _, leaf in paths.named_leaves(state)]
  for leaf, own in zip(found, jax.tree.leaves(state), strict=True):
    assert leaf is own


def test_what_is_to_be_a_leaf_is_one_inside_boxes_too():
  masked = optax.MaskedNode()
  tree = {"a": nnx.Param(masked), "b": [nn.Partitioned(masked, (None,))]}
  is_masked = lambda node: isinstance(node, optax.MaskedNode)
  assert paths.named_leaves(tree) == []
  assert paths.named_leaves(tree, is_masked) == [("a", masked), ("b/0", masked)]
  is_box = lambda node: isinstance(node, nn.Partitioned)
  assert paths.named_leaves(tree, is_box) == [("b/0", tree["b"][0])]


def test_equinox_leaves_are_named_by_their_attributes():
  class Block(eqx.Module):
    norm: eqx.nn.LayerNorm
    layers: tuple

  block = Block(
    eqx.nn.LayerNorm(4), (eqx.nn.Linear(4, 4, key=jax.random.key(0)),)
  )
  expected = [
    "norm/weight",
    "norm/bias",
    "layers/0/weight",
    "layers/0/bias",
  ]
  assert names(block) == expected
  assert names(eqx.filter(block, eqx.is_array)) == expected


def test_haiku_modules_keep_the_slashes_of_their_names():
  class Net(hk.Module):
    def __init__(self):
      super().__init__(name="vit")
      self.block = hk.Linear(3, name="block_0")

    def __call__(self, x):
      return self.block(x)

  params = hk.transform(lambda x: Net()(x)).init(
    jax.random.key(0), jnp.ones((1, 2))
  )
  assert names(params) == ["vit/~/block_0/b", "vit/~/block_0/w"]
  paths.check_paths(paths.named_leaves(params))
  params["vit"] = {"~": {"block_0": {"w": jnp.ones((2, 3))}}}
  with pytest.raises(ValueError, match="'vit/~/block_0/w'"):
    gx.gmixout(key=0, sparsity=0.5).init(params)


def test_messages_list_the_matrices_first():
  named = [(f"bias_{i}", np.ones(2)) for i in range(30)]
  named += [("kernel", jnp.ones((2, 2))), ("table", np.ones((2, 2), int))]
  quoted = paths.quote_leaves(named)
  assert quoted.startswith("'kernel', 'bias_0', 'bias_1'")
  assert quoted.endswith("'bias_18' and 12 more")
