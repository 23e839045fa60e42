"""Tests labels on real models of Linen, NNX, Equinox and Haiku."""

import functools
import itertools

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import gmixout_jax as gx
from gmixout_jax import labels
from tests.combinations import tried

WIDTH, DEPTH, CLASSES = 20, 2, 3
X = jnp.linspace(-1, 1, 2 * 4 * WIDTH).reshape(2, 4, WIDTH)


# Blocks of one array, and blocks apart: in each library with every second one.
mostly_stacked = pytest.mark.parametrize(
  "stacked", tried([False, True], lambda stacked: stacked)
)
mostly_apart = pytest.mark.parametrize(
  "stacked", tried([False, True], lambda stacked: not stacked)
)


def init(model):
  """Parameters of some values. To initialize them, each shape is compiled."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(model.init, jax.random.key(0), X)
  fill = lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)
  return jax.tree.map(fill, shapes)


def paths(params, label):
  named = labels.named_leaves(params)
  given = jax.tree.leaves(gx.gmixout_labels(params))
  return {
    path for (path, _), own in zip(named, given, strict=True) if own == label
  }


def partition():
  return optax.partition(
    {
      "mixed": gx.gmixout(optax.sgd(0.1), key=0, resample_every=2),
      "dense": optax.sgd(0.1),
      "frozen": optax.set_to_zero(),
    },
    gx.gmixout_labels,
  )


def check_training(params, loss):
  """What moves in three steps is what the labels say, of the mixed a tenth."""
  named = labels.named_leaves(params)
  tx = partition()
  state = tx.init(params)

  @jax.jit
  def step(params, state):
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  after = params
  for _ in range(3):
    after, state = step(after, state)
  given = jax.tree.leaves(gx.gmixout_labels(params))
  masks = dict(labels.named_leaves(gx.gmixout_masks(state, after)))
  pairs = zip(named, jax.tree.leaves(after), given, strict=True)
  for (path, before), leaf, label in pairs:
    assert bool((leaf != before).any()) == (label != "frozen"), path
    if label == "mixed":
      assert 0.05 < np.mean(masks[path]) < 0.15, path


class EncoderBlock(nn.Module):
  """Named and unnamed layers, as people have them."""

  partitioned: bool = False

  @nn.compact
  def __call__(self, x, _=None):
    init = nn.initializers.lecun_normal()
    if self.partitioned:
      init = nn.with_partitioning(init, (None, "model"))
    y = nn.LayerNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(2)(y, y)
    return x + nn.Dense(WIDTH, kernel_init=init)(nn.LayerNorm()(x)), None


class LinenViT(nn.Module):
  scan: bool = False
  partitioned: bool = False
  head: bool = True

  @nn.compact
  def __call__(self, x):
    positions = self.param(
      "pos_embedding", nn.initializers.normal(), x.shape[1:]
    )
    x = nn.Dense(WIDTH, name="embedding")(x) + positions[None]
    if self.scan:
      blocks = nn.scan(
        EncoderBlock,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=DEPTH,
        metadata_params={nn.PARTITION_NAME: "layers"},
      )
      x, _ = blocks(self.partitioned)(x)
    else:
      for _ in range(DEPTH):
        x, _ = EncoderBlock(self.partitioned)(x)
    x = nn.LayerNorm()(x).mean(1)
    return nn.Dense(CLASSES, name="head")(x) if self.head else x


@pytest.mark.parametrize(
  ("scan", "partitioned"),
  tried(
    itertools.product([False, True], [False, True]), lambda *case: all(case)
  ),
)
def test_linen(scan, partitioned):
  model = LinenViT(scan, partitioned)
  params = init(model)["params"]
  blocks = (
    ["ScanEncoderBlock_0"]
    if scan
    else [f"EncoderBlock_{i}" for i in range(DEPTH)]
  )
  attention = "MultiHeadDotProductAttention_0"
  matrices = [
    *(f"{attention}/{name}" for name in ("query", "key", "value", "out")),
    "Dense_0",
  ]
  assert paths(params, "mixed") == {
    f"{block}/{matrix}/kernel" for block in blocks for matrix in matrices
  }
  assert paths(params, "dense") == {"head/kernel", "head/bias"}
  check_training(params, lambda p: jnp.sum(model.apply({"params": p}, X) ** 2))
  # In a scan, biases and scales are of rank 2, and in attention of 3.
  chosen = zip(
    labels.named_leaves(params), labels.select_leaves(None, params), strict=True
  )
  assert {path for (path, _), yes in chosen if yes} == {
    *paths(params, "mixed"),
    "head/kernel",
  }


def test_linen_without_a_head():
  model = LinenViT(scan=True, head=False)
  params = init(model)["params"]
  assert paths(params, "dense") == set()
  check_training(params, lambda p: jnp.sum(model.apply({"params": p}, X) ** 2))


class Block(nnx.Module):
  def __init__(self, rngs):
    init = nnx.initializers.lecun_normal()
    init = nnx.with_partitioning(init, (None, "model"))
    self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
    self.attention = nnx.MultiHeadAttention(2, WIDTH, decode=False, rngs=rngs)
    self.fc = nnx.Linear(WIDTH, WIDTH, kernel_init=init, rngs=rngs)

  def __call__(self, x):
    return x + self.fc(self.attention(self.norm(x)))


class NNXViT(nnx.Module):
  """With its blocks stacked and scanned, or in a list."""

  def __init__(self, stacked, rngs):
    if stacked:
      make = nnx.vmap(Block, transform_metadata={nnx.PARTITION_NAME: "layers"})
      self.blocks = make(rngs.split(DEPTH))
    else:
      self.blocks = nnx.List([Block(rngs) for _ in range(DEPTH)])
    self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

  def __call__(self, x):
    if isinstance(self.blocks, nnx.List):
      for block in self.blocks:
        x = block(x)
    else:
      x = nnx.scan(
        lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry
      )(x, self.blocks)
    return self.head(x.mean(1))


@mostly_stacked
def test_nnx(stacked):
  with nnx.use_eager_sharding(False):  # there is no mesh
    model = NNXViT(stacked, nnx.Rngs(0))
    state = nnx.state(model)
    names = ["attention/" + name for name in ("query", "key", "value", "out")]
    blocks = ["blocks"] if stacked else [f"blocks/{i}" for i in range(DEPTH)]
    for params in (state, nnx.to_pure_dict(state)):
      assert paths(params, "mixed") == {
        f"{block}/{name}/kernel" for block in blocks for name in (*names, "fc")
      }
      assert paths(params, "dense") == {"head/kernel", "head/bias"}
    optimizer = nnx.Optimizer(model, partition(), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
      grads = nnx.grad(lambda model: jnp.sum(model(X) ** 2))(model)
      optimizer.update(model, grads)

    for _ in range(3):
      step(model, optimizer)
    after = nnx.state(model)
    given = jax.tree.leaves(gx.gmixout_labels(state))
    pairs = zip(
      jax.tree.leaves(state), jax.tree.leaves(after), given, strict=True
    )
    for before, leaf, label in pairs:
      assert bool((leaf != before).any()) == (label != "frozen")


class EquinoxBlock(eqx.Module):
  norm: eqx.nn.LayerNorm
  attention: eqx.nn.MultiheadAttention
  mlp: eqx.nn.MLP

  def __init__(self, key):
    keys = jax.random.split(key)
    self.norm = eqx.nn.LayerNorm(WIDTH)
    self.attention = eqx.nn.MultiheadAttention(2, WIDTH, key=keys[0])
    self.mlp = eqx.nn.MLP(WIDTH, WIDTH, WIDTH, 1, key=keys[1])

  def __call__(self, x):
    y = jax.vmap(self.norm)(x)
    return x + jax.vmap(self.mlp)(self.attention(y, y, y))


class EquinoxViT(eqx.Module):
  embedding: eqx.nn.Linear
  pos_embedding: jax.Array
  blocks: EquinoxBlock | list[EquinoxBlock]
  norm: eqx.nn.LayerNorm
  head: eqx.nn.Linear

  def __init__(self, stacked, key):
    keys = jax.random.split(key, DEPTH)
    self.embedding = eqx.nn.Linear(WIDTH, WIDTH, key=key)
    self.pos_embedding = jnp.ones((4, WIDTH))
    self.blocks = (
      eqx.filter_vmap(EquinoxBlock)(keys)
      if stacked
      else [EquinoxBlock(key) for key in keys]
    )
    self.norm = eqx.nn.LayerNorm(WIDTH)
    self.head = eqx.nn.Linear(WIDTH, CLASSES, key=key)

  def __call__(self, x):
    x = jax.vmap(self.embedding)(x) + self.pos_embedding
    if isinstance(self.blocks, list):
      for block in self.blocks:
        x = block(x)
    else:
      arrays, static = eqx.partition(self.blocks, eqx.is_array)
      x, _ = jax.lax.scan(
        lambda x, one: (eqx.combine(one, static)(x), None), x, arrays
      )
    return self.head(self.norm(x.mean(0)))


@mostly_apart
def test_equinox(stacked):
  model = EquinoxViT(stacked, jax.random.key(0))
  params, static = eqx.partition(model, eqx.is_inexact_array)
  names = ["query_proj", "key_proj", "value_proj", "output_proj"]
  names = [f"attention/{name}" for name in names]
  blocks = ["blocks"] if stacked else [f"blocks/{i}" for i in range(DEPTH)]
  mixed = {
    f"{block}/{name}/weight"
    for block in blocks
    for name in (*names, "mlp/layers/0", "mlp/layers/1")
  }
  assert paths(params, "mixed") == mixed
  assert paths(params, "dense") == {"head/weight", "head/bias"}
  chosen = labels.select_leaves(None, params)
  named = labels.named_leaves(params)
  assert {
    path for (path, _), yes in zip(named, chosen, strict=True) if yes
  } == {
    *mixed,
    "head/weight",
  }
  loss = lambda params: jnp.sum(jax.vmap(eqx.combine(params, static))(X) ** 2)
  check_training(params, loss)


class TransformerBlock(hk.Module):
  def __call__(self, x):
    y = hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)
    init = hk.initializers.VarianceScaling()
    x = x + hk.MultiHeadAttention(2, WIDTH // 2, w_init=init)(y, y, y)
    return x + hk.Linear(WIDTH)(x)


def haiku_vit(stacked, x):
  positions = hk.get_parameter("pos_embedding", x.shape[1:], init=jnp.ones)
  x = x + positions[None]
  if stacked:
    x = hk.experimental.layer_stack(DEPTH)(lambda x: TransformerBlock()(x))(x)
  else:
    for _ in range(DEPTH):
      x = TransformerBlock()(x)
  return hk.Linear(CLASSES, name="head")(x.mean(1))


@mostly_stacked
def test_haiku(stacked):
  net = hk.without_apply_rng(
    hk.transform(functools.partial(haiku_vit, stacked))
  )
  params = init(net)
  blocks = (
    ["__layer_stack_no_per_layer/transformer_block"]
    if stacked
    else ["transformer_block", "transformer_block_1"]
  )
  names = [
    f"multi_head_attention/{name}"
    for name in ("query", "key", "value", "linear")
  ]
  mixed = {
    f"{block}/{name}/w" for block in blocks for name in (*names, "linear")
  }
  assert paths(params, "mixed") == mixed
  assert paths(params, "dense") == {"head/w", "head/b"}
  chosen = labels.select_leaves(None, params)
  named = labels.named_leaves(params)
  assert {
    path for (path, _), yes in zip(named, chosen, strict=True) if yes
  } == {
    *mixed,
    "head/w",
  }
  check_training(params, lambda params: jnp.sum(net.apply(params, X) ** 2))
