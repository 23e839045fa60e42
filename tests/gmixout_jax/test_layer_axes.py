"""Tests `gx.nnx.axes` and `gx.linen.axes`: what layers say of their kernels."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import gmixout_jax as gx
from gmixout_jax._core import layer_axes

pytestmark = pytest.mark.slow


class Blocks(nnx.Module):
  def __init__(self, rngs):
    self.attention = nnx.MultiHeadAttention(3, 12, 18, rngs=rngs)
    self.linear = nnx.LoRALinear(12, 12, lora_rank=2, rngs=rngs)


def nnx_model():
  rngs = nnx.Rngs(0)

  class Model(nnx.Module):
    def __init__(self):
      self.embed = nnx.Embed(30, 12, rngs=rngs)
      self.line = nnx.Conv(12, 12, (3,), rngs=rngs)
      self.volume = nnx.Conv(12, 12, (3, 3, 3), rngs=rngs)
      self.groups = nnx.Conv(12, 12, (3,), feature_group_count=4, rngs=rngs)
      self.up = nnx.ConvTranspose(12, 8, (3, 3), rngs=rngs)
      self.flipped = nnx.ConvTranspose(
        12, 8, (3, 3), transpose_kernel=True, rngs=rngs
      )
      self.einsum = nnx.Einsum("nta,hab->nthb", (8, 2, 4), rngs=rngs)
      self.by_call = nnx.Einsum("bi,io->bo", (8, 4), rngs=rngs)
      self.by_call.einsum_str = None  # pyright: ignore
      self.batched = nnx.LinearGeneral(3, 4, batch_axis={0: 2}, rngs=rngs)
      self.cell = nnx.LSTMCell(3, 4, rngs=rngs)
      self.one = Blocks(rngs)
      self.stack = nnx.split_rngs(splits=5)(nnx.vmap(Blocks))(rngs)
      self.other_axis = nnx.split_rngs(splits=5)(
        nnx.vmap(lambda rngs: nnx.Linear(12, 20, rngs=rngs), out_axes=1)
      )(rngs)
      self.other = nnx.Param(jnp.ones((3, 4)))

  return Model()


def test_layers_of_nnx():
  with nnx.use_eager_sharding(False):
    axes = gx.nnx.axes(nnx.eval_shape(nnx_model))
  known = dict(axes.known)  # pyright: ignore
  cell = {f"cell/{name}/kernel": "io" for name in _gates("if_")}
  assert known == cell | {
    "batched/kernel": "",
    "by_call/kernel": "",
    "einsum/kernel": "oio",
    "embed/embedding": "io",
    "flipped/kernel": "ssoi",
    "groups/kernel": "sio",
    "line/kernel": "sio",
    "one/attention/key/kernel": "ioo",
    "one/attention/out/kernel": "iio",
    "one/attention/query/kernel": "ioo",
    "one/attention/value/kernel": "ioo",
    "one/linear/kernel": "io",
    "one/linear/lora/lora_a": "io",
    "one/linear/lora/lora_b": "io",
    "other_axis/kernel": "ilo",
    "stack/attention/key/kernel": "lioo",
    "stack/attention/out/kernel": "liio",
    "stack/attention/query/kernel": "lioo",
    "stack/attention/value/kernel": "lioo",
    "stack/linear/kernel": "lio",
    "stack/linear/lora/lora_a": "lio",
    "stack/linear/lora/lora_b": "lio",
    "up/kernel": "ssio",
    "volume/kernel": "sssio",
  }
  # A leaf of no layer goes by its name, a layer that does not tell by none.
  assert axes("other", jnp.ones((3, 4))) == "io"
  assert axes("batched/kernel", jnp.ones((2, 3, 4))) is None
  assert axes("params/line/kernel", jnp.ones((3, 12, 12))) == "sio"


def _gates(f):
  return ["ii", f, "ig", "io", "hi", "hf", "hg", "ho"]


class Body(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "m"))
    x = nn.MultiHeadDotProductAttention(3, qkv_features=18)(x)
    return nn.Dense(12, kernel_init=init)(x), None


class Linen(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    lift: Any = {"split_rngs": {"params": True}}
    lift["metadata_params"] = {nn.PARTITION_NAME: None}
    scan = functools.partial(nn.scan, length=5, **lift)
    x, _ = scan(nn.remat(Body), variable_axes={"params": 0})(name="s")(x, None)
    inner = nn.scan(Body, length=2, variable_axes={"params": 0}, **lift)
    outer = scan(inner, variable_axes={"params": 0}, in_axes=nn.broadcast)
    x, _ = outer(name="nested")(x, None)
    nn.Conv(4, 3, name="line")(x)
    nn.Conv(12, (3,), feature_group_count=4, name="groups")(x)
    nn.ConvLocal(4, (3,), name="local")(x)
    nn.ConvTranspose(4, (3,), transpose_kernel=True, name="flipped")(x)
    nn.Embed(30, 12, name="embed")(jnp.zeros(3, jnp.int32))
    nn.RNN(nn.LSTMCell(5, name="cell"), name="rnn")(x)
    nn.Einsum((12, 2, 3), "bta,aho->btho", name="einsum")(x)
    nn.Einsum((12, 2, 3), name="by_call")(x, "bta,aho->btho")
    nn.DenseGeneral((4, 5), (1, 2), name="general")(x)
    nn.DenseGeneral(5, batch_dims=(0,), name="batched")(x)
    nn.vmap(
      nn.Dense,
      in_axes=None,  # pyright: ignore
      out_axes=0,
      axis_size=7,
      variable_axes={"params": 1},
      **lift,
    )(6, name="members")(x)
    return nn.Dropout(0.5, deterministic=not train)(x)


def test_layers_of_linen():
  x = jax.ShapeDtypeStruct((2, 4, 12), jnp.float32)
  axes: Any = gx.linen.axes(Linen(), x, train=True)
  known = dict(axes.known)
  cell = {f"cell/{name}/kernel": "io" for name in _gates("if")}
  attention = "MultiHeadDotProductAttention_0"
  stacks = {"s": "l", "nested": "ll"}
  expected = cell | {
    f"{name}/{attention}/{part}/kernel": layers + letters
    for name, layers in stacks.items()
    for part, letters in zip(
      ("query", "key", "value", "out"),
      ("ioo", "ioo", "ioo", "iio"),
      strict=True,
    )
  }
  expected |= {
    f"{s}/Dense_0/kernel": f"{layers}io" for s, layers in stacks.items()
  }
  assert known == expected | {
    "batched/kernel": "",
    "by_call/kernel": "ioo",
    "einsum/kernel": "ioo",
    "embed/embedding": "io",
    "flipped/kernel": "soi",
    "general/kernel": "iioo",
    "groups/kernel": "sio",
    "line/kernel": "sio",
    "local/kernel": "sio",
    "members/kernel": "ilo",
  }


@pytest.mark.parametrize(
  ("letters", "own", "shape", "expected"),
  [
    ("io", (8, 32), (8, 32), "io"),
    ("io", (8, 32), (2, 3, 8, 32), "llio"),
    ("io", (8, 32), (8, 32, 2), "iol"),
    ("io", (8, 8), (8, 8, 8), "lio"),  # layers lead if they can
    ("io", (None, 8), (5, 3, 8), "lio"),
    ("io", (8, 4), (8, 7, 7, 4), "illo"),
    ("io", (8, 32), (32,), None),
    ("io", (8, 32), (8, 31), None),
    ("iio", (2, 3, 4), (2, 7, 3, 4), None),  # would part the inputs
    (None, (8, 32), (2, 8, 32), None),
  ],
)
def test_axes_of_stacks(letters, own, shape, expected):
  assert layer_axes.stacked(letters, own, shape) == expected


@pytest.mark.parametrize(
  ("equation", "expected"),
  [
    ("...a,ab->...b", "io"),
    ("bthd,hde->bte", "iio"),
    ("ab,cb->ac", "oi"),
    ("bi,bio->bo", None),  # a batch axis
    ("bi,iok->bo", None),  # an axis that is summed alone
    ("bij,ioj->bo", None),  # inputs that are not side by side
    ("bi,io", None),
    (None, None),
  ],
)
def test_axes_of_einsum(equation, expected):
  assert layer_axes.einsum(equation) == expected


def test_axes_are_metadata_of_a_state():
  """Made twice alike they are equal, as are states: a step compiles once."""
  make = lambda: nnx.LinearGeneral((2, 10), 6, axis=(-2, -1), rngs=nnx.Rngs(0))
  one, two = gx.nnx.axes(make()), gx.nnx.axes(make())
  assert one == two
  assert hash(one) == hash(two)
  assert one != gx.nnx.axes(nnx.Linear(6, 6, rngs=nnx.Rngs(0)))
  params = nnx.to_pure_dict(nnx.state(make()))
  state = [
    gx.gmixout(sampler="neuron", axes=axes, key=0).init(params)
    for axes in (one, two)
  ]
  assert jax.tree.structure(state[0]) == jax.tree.structure(state[1])
  traces = []
  step = jax.jit(lambda state: traces.append(None))
  step(state[0])
  step(state[1])
  assert len(traces) == 1


@pytest.mark.parametrize("groups", [1, 4])
def test_an_input_of_a_convolution_is_a_channel_of_each_group(groups):
  """The output hears an active input alone, by every weight it has."""
  layer = nnx.Conv(
    12, 8, (3,), feature_group_count=groups, use_bias=False, rngs=nnx.Rngs(0)
  )
  _, mixed, _ = gx.nnx.split(layer, sampler="neuron", sparsity=0.6, key=1)
  mask = np.asarray(mixed.masks()["kernel"])
  layer.kernel[...] = jnp.asarray(mask, jnp.float32)
  heard = [
    np.asarray(layer(jnp.tile(jnp.eye(12)[channel], (5, 1))))
    for channel in range(12)
  ]
  heard = np.array([np.abs(out).max() > 0 for out in heard])
  inputs = 12 // groups
  count = round(0.4 * inputs)
  by_group = heard.reshape(groups, inputs)
  np.testing.assert_array_equal(by_group.sum(1), count)
  np.testing.assert_array_equal(by_group, by_group[:1].repeat(groups, 0))
  assert mask.sum() == 3 * count * 8
