"""Tests weights that carry names for their axes: what is packed keeps them.

The references are the same weights without a name, on one device.
"""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.core import freeze, meta
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gmixout_jax as gx
from tests.gmixout_jax.compiling import jit

pytestmark = pytest.mark.slow

MESHES = {
  "one axis": ((8,), ("model",)),
  "two axes": ((2, 4), ("data", "model")),
}
STEPS = 5  # two episodes, and one step
SETTINGS: dict[str, Any] = {
  "sparsity": 0.7,
  "resample_every": 2,
  "key": 3,
  "target": "kernel",
}
INNER = optax.sgd(0.05, momentum=0.9)
INPUTS = jax.random.normal(jax.random.key(0), (STEPS, 16, 16))

# Kernels of 16 x 24 and 24 x 16. What is kept of 16 or 24, 5 or 7, no mesh can
# divide.
NAMES = (("data", "model"), ("model", "data"))
AXES = ("data", "model")
RULES = (("rows", "data"), ("columns", "model"))
LOGICAL = (("rows", "columns"), ("columns", "rows"))

# How many axes of a packed kernel keep their names, and which.
PACKED = {
  "stratified": lambda names: (names[0], None),
  "neuron": lambda names: (None, names[1]),
  "uniform": lambda names: (None,),
  "bernoulli": lambda names: (None,),
}

every_sampler = pytest.mark.parametrize("sampler", PACKED)
every_mesh = pytest.mark.parametrize("mesh", MESHES)

same = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def mesh_of(name):
  shape, axes = MESHES[name]
  return jax.make_mesh(shape, axes, (AxisType.Auto,) * len(axes))


def on(mesh, names):
  """Names of axes, but for those that the mesh does not have."""
  return tuple(name if name in mesh.axis_names else None for name in names)


def loss(outputs, x):
  return jnp.mean((outputs - jnp.tanh(x)) ** 2)


def assert_packed(array, mesh, sampler, names):
  """A packed array lies on the devices as its weights do."""
  wanted = NamedSharding(mesh, PartitionSpec(*PACKED[sampler](names)))
  assert array.sharding.is_equivalent_to(wanted, array.ndim)


# NNX.


class Network(nnx.Module):
  def __init__(self, names=None, **metadata):
    init, rngs = nnx.initializers.lecun_normal(), nnx.Rngs(0)
    kernels = [init, init]
    if names is not None:
      kernels = [
        nnx.with_partitioning(init, own, **metadata)  # pyright: ignore
        for own in names
      ]
    self.up = nnx.Linear(16, 24, kernel_init=kernels[0], rngs=rngs)
    self.down = nnx.Linear(24, 16, kernel_init=kernels[1], rngs=rngs)

  def __call__(self, x):
    return self.down(jnp.tanh(self.up(x)))


def optimizer_of(model, form, sampler):
  settings = SETTINGS | {"sampler": sampler}
  if form == "gmixout":
    return nnx.Optimizer(model, gx.gmixout(INNER, **settings), wrt=nnx.Param)
  return gx.nnx.MixedOptimizer(model, INNER, **settings)


def train_nnx(form, sampler, names=None, constrain=False, **metadata):
  """Weights after training; anchor and moments as they are made."""

  def make():
    model = Network(names, **metadata)
    optimizer = optimizer_of(model, form, sampler)
    if constrain:
      state = nnx.state((model, optimizer))
      specs = nnx.get_partition_spec(state)
      nnx.update(
        (model, optimizer), jax.lax.with_sharding_constraint(state, specs)
      )
    return model, optimizer

  @nnx.jit
  def step(model, optimizer, x):
    of = lambda model, x: loss(model(x), x)
    if form == "gmixout":
      grads = nnx.grad(of)(model, x)
    else:
      _, grads = optimizer.value_and_grad(of)(model, x)
    optimizer.update(model, grads)

  model, optimizer = (nnx.jit(make) if constrain else make)()
  optimizer: Any
  memory = optimizer.opt_state if form == "gmixout" else optimizer.mix
  moments = memory.inner_state if form == "gmixout" else optimizer.opt_state
  # Where a step leaves them is for the compiler to say.
  begun = jax.tree.map(lambda x: x, (memory.anchor, moments[0].trace))
  for x in INPUTS:
    step(model, optimizer, x)
  return nnx.to_pure_dict(nnx.state(model)), *begun


expected_nnx = functools.cache(lambda *args: train_nnx(*args)[0])


@every_mesh
@every_sampler
@pytest.mark.parametrize("form", ["gmixout", "MixedOptimizer"])
@pytest.mark.parametrize("constrain", [False, True])
def test_nnx_models_with_partitioning(form, sampler, mesh, constrain):
  mesh = mesh_of(mesh)
  names = [on(mesh, own) for own in NAMES]
  with jax.set_mesh(mesh):
    found, *packed = train_nnx(form, sampler, names, constrain)
  jax.tree.map(same, found, expected_nnx(form, sampler))
  for tree in packed:  # the anchor, and a moment
    for layer, own in zip(("up", "down"), names, strict=True):
      variable = tree[layer]["kernel"]
      assert variable.get_metadata("out_sharding") == PACKED[sampler](own)
      assert_packed(variable.get_value(), mesh, sampler, own)


@pytest.mark.parametrize("sampler", ["stratified", "neuron"])
@pytest.mark.parametrize("form", ["gmixout", "MixedOptimizer"])
@pytest.mark.parametrize("kind", ["spec", "sharding", "optimizer's", "rules"])
def test_other_ways_to_name_the_axes_of_a_variable(kind, form, sampler):
  mesh = mesh_of("two axes")
  names: Any = NAMES
  metadata = {}
  if kind == "spec":
    names = [PartitionSpec(*own) for own in NAMES]
  elif kind == "sharding":
    names = [NamedSharding(mesh, PartitionSpec(*own)) for own in NAMES]
  elif kind == "optimizer's":
    names = [(None, None), (None, None)]
    metadata["optimizer_sharding"] = ("data", "model")
  else:
    names, metadata["sharding_rules"] = LOGICAL, RULES
  context = (
    contextlib.nullcontext() if kind == "sharding" else jax.set_mesh(mesh)
  )
  with context:
    found, _, trace = train_nnx(form, sampler, names, **metadata)
  jax.tree.map(same, found, expected_nnx(form, sampler))
  own = NAMES[0]
  assert_packed(trace["up"]["kernel"].get_value(), mesh, sampler, own)


# Linen.


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


@every_mesh
@every_sampler
@pytest.mark.parametrize("form", ["gmixout", "MixedParams"])
@pytest.mark.parametrize("kind", ["partitioned", "logical"])
def test_linen_modules_with_partitioning(form, sampler, mesh, kind):
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


@every_sampler
@pytest.mark.parametrize("form", ["gmixout", "MixedParams"])
@pytest.mark.parametrize("kind", ["partitioned", "logical"])
def test_a_box_changes_no_bit_on_one_device(form, sampler, kind):
  params, _ = train_linen(form, sampler, kind)
  plain, _ = train_linen(form, sampler)
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


@pytest.mark.parametrize("wrap", ["unknown", "frozen"])
@pytest.mark.parametrize("form", ["gmixout", "MixedParams"])
def test_other_boxes(form, wrap):
  params = {"layer": {"kernel": INPUTS[0][:, :12]}}
  boxed: Any = freeze(params)
  if wrap == "unknown":
    boxed = {"layer": {"kernel": Unknown(params["layer"]["kernel"], (16, 12))}}

  def train(params):
    of = lambda params: jnp.sum(jnp.tanh(jax.tree.leaves(params)[0]) ** 2)
    if form == "gmixout":
      tx = gx.gmixout(INNER, **SETTINGS)
      state = tx.init(params)
      for _ in range(3):
        updates, state = tx.update(jax.grad(of)(params), state, params)
        params = optax.apply_updates(params, updates)
      return gx.gmixout_eval_params(state, params)
    mixed = gx.MixedParams.create(params, **SETTINGS)
    state = INNER.init(mixed.trainable())
    for _ in range(3):
      _, grads = mixed.value_and_grad(of)()
      mixed, state = mixed.apply_gradients(INNER, grads, state)
    return mixed.eval_params()

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


@pytest.mark.parametrize("sampler", ["stratified", "neuron"])
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
