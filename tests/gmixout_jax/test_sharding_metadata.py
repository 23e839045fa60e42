"""Tests NNX weights that carry names for their axes: what is packed keeps them.

The references are the same weights without a name, on one device.
"""

import contextlib
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gmixout_jax as gx
from tests.combinations import tried
from tests.gmixout_jax.named_axes import (
  INNER,
  INPUTS,
  LOGICAL,
  MESHES,
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

FORMS = ("gmixout", "MixedOptimizer")


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


@pytest.mark.parametrize(
  ("form", "sampler", "where"),
  tried(
    itertools.product(
      FORMS,
      PACKED,
      [("one axis", False), ("two axes", False), ("two axes", True)],
    ),
    lambda *case: (
      case
      in (
        ("MixedOptimizer", "stratified", ("two axes", True)),
        # `gmixout` is tried with names that are given otherwise, below.
      )
    ),
  ),
)
def test_nnx_models_with_partitioning(form, sampler, where):
  mesh, constrain = where
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


@pytest.mark.parametrize(
  ("kind", "form", "sampler"),
  tried(
    itertools.product(
      ["spec", "sharding", "optimizer's", "rules"],
      FORMS,
      ["stratified", "neuron"],
    ),
    # Above is the other form, with the other sampler.
    lambda _, form, sampler: (form, sampler) == ("gmixout", "neuron"),
  ),
)
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


class Divided(nnx.Module):
  """Says where its products lie, as an Explicit mesh asks of it."""

  def __init__(self, names=None):
    init = nnx.initializers.lecun_normal()
    kernels = [init, init]
    if names is not None:
      kernels = [nnx.with_partitioning(init, own) for own in names]
    rngs = nnx.Rngs(0)
    self.up = nnx.LinearGeneral(16, (6, 4), kernel_init=kernels[0], rngs=rngs)
    self.down = nnx.LinearGeneral(
      (6, 4), 16, axis=(-2, -1), kernel_init=kernels[1], rngs=rngs
    )

  def __call__(self, x, whole=None):
    return self.down(jnp.tanh(self.up(x)), out_sharding=whole)


@pytest.mark.parametrize(
  ("sampler", "mesh"),
  tried(
    itertools.product(PACKED, MESHES),
    lambda *case: case == ("neuron", "two axes"),
  ),
)
def test_explicit_meshes(sampler, mesh):
  """There the sharding of weights, gradients and taps is in their types."""
  shape, axes = MESHES[mesh]
  mesh = jax.make_mesh(shape, axes, (AxisType.Explicit,) * len(axes))
  rows = PartitionSpec("data" if "data" in axes else None)
  names = ((None, None, "model"), (None, "model", None))
  if len(axes) == 1:
    names = ((None, None, None), (None, None, "model"))

  def train(names, x_sharding, whole):
    model = Divided(names)
    optimizer = gx.nnx.MixedOptimizer(model, INNER, sampler=sampler, **SETTINGS)

    @nnx.jit
    def step(model, optimizer, x):
      of = lambda model: loss(model(x, whole), x)
      _, grads = optimizer.value_and_grad(of)(model)
      optimizer.update(model, grads)

    for x in np.asarray(INPUTS):
      step(model, optimizer, jax.device_put(x, x_sharding))
    return jax.device_get(nnx.to_pure_dict(nnx.state(model)))

  expected = train(None, None, None)
  with jax.set_mesh(mesh):
    found = train(names, NamedSharding(mesh, rows), rows)
  jax.tree.map(same, found, expected)
