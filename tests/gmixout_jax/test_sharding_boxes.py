"""Tests Linen weights in boxes that name their axes: what is packed keeps them.

The references are the same weights without a box, on one device.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.core import freeze, meta

import gmixout_jax as gx
from tests.combinations import every_value, tried
from tests.gmixout_jax.compiling import jit
from tests.gmixout_jax.named_axes import (
  AXES,
  INNER,
  INPUTS,
  NAMES,
  PACKED,
  RULES,
  SETTINGS,
  assert_packed,
  loss,
  mesh_of,
  on,
  same,
)

pytestmark = pytest.mark.slow

FORMS = ("gmixout", "MixedParams")


class Linen(nn.Module):
  kind: str = ""
  names: tuple[tuple[str | None, ...], ...] = NAMES

  @nn.compact
  def __call__(self, x):
    init = nn.initializers.lecun_normal()
    kernels = [init, init]
    if self.kind:
      box = {
        "partitioned": nn.with_partitioning,
        "logical": nn.with_logical_partitioning,
      }[self.kind]
      kernels = [box(init, names) for names in self.names]
    dense = functools.partial(nn.Dense, dot_general_cls=gx.linen.TappedDot)
    x = jnp.tanh(dense(24, kernel_init=kernels[0], name="up")(x))
    return dense(16, kernel_init=kernels[1], name="down")(x)


def linen_form(form, module, sampler):
  """Functions that begin and take a step, and read the result."""
  settings = SETTINGS | {"sampler": sampler}
  if form == "gmixout":
    tx = gx.gmixout(INNER, **settings)

    def begin(params):
      return params, tx.init(params)

    def step(carry, x):
      params, state = carry
      of = lambda params: loss(module.apply({"params": params}, x), x)
      updates, state = tx.update(jax.grad(of)(params), state, params)
      return optax.apply_updates(params, updates), state

    return begin, step, lambda carry: (carry[0], carry[1].anchor)

  def begin_mixed(params):
    mixed = gx.MixedParams.create(params, **settings)
    return mixed, INNER.init(mixed.trainable())

  def step_mixed(carry, x):
    mixed, state = carry
    of = lambda trainable: loss(
      module.apply(gx.linen.variables(mixed, trainable), x), x
    )
    grads = jax.grad(of)(mixed.trainable())
    return mixed.apply_gradients(INNER, grads, state)

  return (
    begin_mixed,
    step_mixed,
    lambda carry: (carry[0].params, carry[0].anchor),
  )


def train_linen(form, sampler, kind="", names=NAMES, mesh=None):
  """Weights after training; the anchor as it is made, where its names say."""
  module = Linen(kind, names)
  begin, step, read = linen_form(form, module, sampler)

  def placed(function, *args):
    if mesh is None:
      return jit(function)(*args)
    specs = nn.get_partition_spec(jax.eval_shape(function, *args))
    rules = RULES if kind == "logical" else [(name, name) for name in AXES]
    shardings = nn.logical_to_mesh_sharding(specs, mesh, rules)  # pyright: ignore
    return jax.jit(function, out_shardings=shardings)(*args)

  params = placed(lambda key: module.init(key, INPUTS[0]), jax.random.key(0))
  carry = placed(begin, params["params"])
  _, anchor = read(carry)
  for x in INPUTS:
    carry = jit(step)(carry, x)
  return read(carry)[0], anchor


def bare(tree):
  return meta.unbox(tree)


expected_linen = functools.cache(lambda *args: train_linen(*args)[0])


@pytest.mark.parametrize(
  ("form", "sampler", "where"),
  tried(
    itertools.product(
      FORMS,
      PACKED,
      [
        ("one axis", "partitioned"),
        ("two axes", "partitioned"),
        ("two axes", "logical"),
      ],
    ),
    lambda *case: (
      case
      in (
        ("MixedParams", "stratified", ("two axes", "logical")),
        # `gmixout` is tried with the names of NNX, and on one device.
      )
    ),
  ),
)
def test_linen_modules_with_partitioning(form, sampler, where):
  mesh, kind = where
  mesh = mesh_of(mesh)
  names = tuple(on(mesh, own) for own in NAMES)
  given = names
  if kind == "logical":
    logical = {mine: name for name, mine in RULES} | {None: None}
    given = tuple(tuple(logical[name] for name in own) for own in names)
  with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
    params, anchor = train_linen(form, sampler, kind, given, mesh)
  assert isinstance(params["up"]["kernel"], meta.Partitioned)
  expected = expected_linen(form, sampler)
  with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
    jax.tree.map(same, bare(params), expected)
  for layer, own, written in zip(("up", "down"), names, given, strict=True):
    box = anchor[layer]["kernel"]
    assert type(box) is type(params[layer]["kernel"])
    assert box.names == PACKED[sampler](written)
    assert_packed(box.value, mesh, sampler, own)


@pytest.mark.parametrize(
  ("sampler", "kind", "form"),
  # Of one that keeps names of axes, and one that keeps none.
  tried(
    itertools.product(PACKED, ["partitioned", "logical"], FORMS),
    lambda *case: (
      case
      in {
        ("neuron", "logical", "MixedParams"),
        ("uniform", "partitioned", "gmixout"),
      }
    ),
  ),
)
def test_a_box_changes_no_bit_on_one_device(form, sampler, kind):
  params, _ = train_linen(form, sampler, kind)
  plain = expected_linen(form, sampler)
  jax.tree.map(np.testing.assert_array_equal, bare(params), plain)


class Unknown(meta.AxisMetadata):
  """A box that this library has never seen."""

  def __init__(self, value: Any, shape: tuple[int, ...]):
    self.value, self.shape = value, shape

  def unbox(self):
    return self.value

  def replace_boxed(self, val):
    return Unknown(val, self.shape)

  def add_axis(self, index, params):
    raise NotImplementedError

  def remove_axis(self, index, params):
    raise NotImplementedError


jax.tree_util.register_pytree_node(
  Unknown, lambda box: ((box.value,), box.shape), lambda s, v: Unknown(*v, s)
)


def three_steps(tx, loss, params):
  """Weights and state; a loop is compiled once."""

  def step(_, carry):
    params, state = carry
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  return jax.lax.fori_loop(0, 3, step, (params, tx.init(params)))


def three_packed_steps(mixed, loss):
  """The same of the wrapper, with `INNER`."""

  def step(_, carry):
    mixed, state = carry
    _, grads = mixed.value_and_grad(loss)()
    return mixed.apply_gradients(INNER, grads, state)

  start = mixed, INNER.init(mixed.trainable())
  return jax.lax.fori_loop(0, 3, step, start)[0]


@pytest.mark.parametrize(
  ("form", "wrap"), every_value(FORMS, ["unknown", "frozen"])
)
def test_other_boxes(form, wrap):
  params = {"layer": {"kernel": INPUTS[0][:, :12]}}
  boxed: Any = freeze(params)
  if wrap == "unknown":
    boxed = {"layer": {"kernel": Unknown(params["layer"]["kernel"], (16, 12))}}

  of = lambda params: jnp.sum(jnp.tanh(jax.tree.leaves(params)[0]) ** 2)

  def train(params):
    if form == "gmixout":
      params, state = three_steps(gx.gmixout(INNER, **SETTINGS), of, params)
      return gx.gmixout_eval_params(state, params)
    mixed = gx.MixedParams.create(params, **SETTINGS)
    return three_packed_steps(mixed, of).eval_params()

  found = jit(train)(boxed)
  assert jax.tree.structure(found) == jax.tree.structure(boxed)
  (one,), (other,) = map(jax.tree.leaves, (found, jit(train)(params)))
  np.testing.assert_array_equal(one, other)
  assert np.abs(one - params["layer"]["kernel"]).max() > 1e-2


def test_a_box_is_no_part_of_a_path():
  """Rules, masks and labels are those of bare weights."""
  module = Linen("partitioned")
  params = jax.eval_shape(module.init, jax.random.key(0), INPUTS[0])["params"]
  rules = (
    (r"^up/kernel$", "mixed"),
    (r"^down/kernel$", "dense"),
    ("", "frozen"),
  )
  labels = gx.gmixout_labels(params, rules)
  assert bare(labels)["up"] == {"bias": "frozen", "kernel": "mixed"}
  assert bare(labels)["down"] == {"bias": "frozen", "kernel": "dense"}


@pytest.mark.parametrize(
  "sampler", tried(["stratified", "neuron"], lambda name: name == "neuron")
)
def test_boxed_stacks_of_layers(sampler):
  """A scan takes names off and puts them on; taps have none."""

  class Body(nn.Module):
    box: bool

    @nn.compact
    def __call__(self, x, _):
      init = nn.initializers.lecun_normal()
      if self.box:
        init = nn.with_partitioning(init, ("data", "model"))
      dot = gx.linen.TappedDot
      return jnp.tanh(nn.Dense(16, kernel_init=init, dot_general_cls=dot)(x)), 0

  class Stack(nn.Module):
    box: bool

    @nn.compact
    def __call__(self, x):
      scanned = nn.scan(
        Body,
        length=2,
        variable_axes={"params": 0, "taps": 0},
        split_rngs={"params": True},
        metadata_params={nn.PARTITION_NAME: "layers"},
      )
      return scanned(self.box, name="blocks")(x, None)[0]

  def train(box):
    module = Stack(box)
    params = jit(module.init)(jax.random.key(0), INPUTS[0])["params"]
    mixed = gx.MixedParams.create(
      params,
      sampler=sampler,
      axes=gx.linen.axes(module, INPUTS[0]),
      **SETTINGS,
    )

    @jit
    def step(mixed, state, x):
      of = lambda trainable: loss(
        module.apply(gx.linen.variables(mixed, trainable), x), x
      )
      grads = jax.grad(of)(mixed.trainable())
      return mixed.apply_gradients(INNER, grads, state)

    state = INNER.init(mixed.trainable())
    for x in INPUTS:
      mixed, state = step(mixed, state, x)
    return mixed

  mixed: Any = train(True)
  plain: Any = train(False)
  jax.tree.map(np.testing.assert_array_equal, bare(mixed.params), plain.params)
  box = mixed.anchor["blocks"]["Dense_0"]["kernel"]
  kept = {
    "stratified": ("layers", "data", None),
    "neuron": ("layers", None, "model"),
  }
  assert box.names == kept[sampler]


@pytest.mark.parametrize(
  ("form", "kind"),
  tried(
    itertools.product(FORMS, ["partitioned", "logical", "frozen"]),
    lambda *case: (
      case in {("gmixout", "partitioned"), ("MixedParams", "frozen")}
    ),
  ),
)
def test_rules_label_boxed_weights(form, kind):
  """In `optax.partition`, and as a target."""

  def train(kind):
    module = Linen("" if kind == "frozen" else kind)
    start = module.init(jax.random.key(0), INPUTS[0])["params"]
    params: Any = {"layers_0": start["up"], "head": start["down"]}
    params = freeze(params) if kind == "frozen" else params
    of = lambda p: loss(
      module.apply({"params": {"up": p["layers_0"], "down": p["head"]}}, x), x
    )
    x = INPUTS[0]
    if form == "gmixout":
      parts: Any = {
        "mixed": gx.gmixout(INNER, sparsity=0.7, resample_every=2, key=3),
        "dense": INNER,
        "frozen": optax.set_to_zero(),
      }
      tx = optax.partition(parts, gx.gmixout_labels)
      params, state = three_steps(tx, of, params)
      return params, gx.gmixout_eval_params(state, params)
    settings: Any = SETTINGS | {"target": gx.VIT_RULES}
    mixed = three_packed_steps(gx.MixedParams.create(params, **settings), of)
    return mixed.params, mixed.eval_params()

  train = jit(train, static_argnums=0)
  found, expected = train(kind), train("")
  for one, two in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_array_equal(one, two)
