"""Meshes, names for the axes of kernels, and what packing leaves of them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

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
