"""Tests `gmixout_jax/nnx.py`: taps of stacked layers are cut as these are.

The references are the dense weights, and taps on the weights.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gmixout_jax as gx
from tests.combinations import every_value, tried
from tests.gmixout_jax.compiling import (
  compare,
  count_dense_gradients,
  count_written,
  kept_shapes,
)
from tests.gmixout_jax.nnx_network import (
  INPUTS,
  KERNELS,
  filled,
  square,
  tapped_and_plain,
)

pytestmark = pytest.mark.slow


class Stack(nnx.Module):
  """Four blocks in one, as `nnx.scan` runs them."""

  def __init__(self, rngs, remat=False, axes: Any = 0):
    class Block(nnx.Module):
      def __init__(self, rngs):
        self.up = nnx.Linear(12, 20, rngs=rngs)
        self.down = nnx.LinearGeneral((2, 10), (12,), axis=(-2, -1), rngs=rngs)

      def __call__(self, x):
        y = jnp.tanh(self.up(x))
        return jnp.tanh(self.down(y.reshape(*y.shape[:-1], 2, 10)))

    @nnx.split_rngs(splits=4)
    @nnx.vmap(out_axes=axes)
    def make(rngs):
      return Block(rngs)

    self.blocks = make(rngs)
    self.remat = remat
    self.axes = axes

  def __call__(self, x):
    block = lambda x, layer: layer(x)
    if self.remat:
      block = nnx.remat(block)
    scan = nnx.scan(block, in_axes=(nnx.Carry, self.axes), out_axes=nnx.Carry)
    return scan(x, self.blocks)


@pytest.mark.optimized
@pytest.mark.parametrize("remat", tried([False, True], lambda remat: not remat))
def test_neurons_of_a_scanned_stack(remat):
  """Neither the body's dense gradients nor a stack of them are made."""
  x = jax.random.normal(jax.random.key(1), (60, 12))
  tapped, plain, args = tapped_and_plain(
    filled(lambda: Stack(nnx.Rngs(0), remat)),
    square,
    x,
    sampler="neuron",
    target="kernel",
  )
  shapes = ((12, 20), (2, 10, 12))
  assert count_dense_gradients(plain, args, *shapes) == 2
  assert count_dense_gradients(tapped, args, *shapes) == 0
  saved = compare(tapped, plain, args)
  if not remat:
    # XLA counts the body of a loop once; 8 of 12 and 14 of 20 do not train.
    assert saved == pytest.approx(2 * 60 * (8 * 20 + 14 * 12), rel=0.25)
  stacks = ((4, 12, 20), (4, 2, 10, 12))
  assert count_written(plain, args, *stacks)
  assert not count_written(tapped, args, *stacks)


def test_each_layer_of_a_stack_trains_inputs_of_its_own():
  graphdef, mixed, rest = gx.nnx.split(
    filled(lambda: Stack(nnx.Rngs(0))),
    sampler="neuron",
    **KERNELS,
  )
  mask = np.asarray(mixed.masks()["blocks"]["down"]["kernel"])
  assert mask.shape == (4, 2, 10, 12)
  rows = mask.reshape(4, 20, 12).all(-1)
  np.testing.assert_array_equal(rows, mask.reshape(4, 20, 12).any(-1))
  np.testing.assert_array_equal(rows.sum(1), 6)
  assert len(np.unique(rows, axis=0)) > 1
  kept = kept_shapes(
    lambda t: square(gx.nnx.merge(graphdef, mixed, t, rest), INPUTS[0]),
    mixed.trainable(),
  )
  dense = kept_shapes(
    lambda p: square(nnx.merge(graphdef, p, rest, copy=True), INPUTS[0]),
    mixed.params,
  )
  # Of 16 inputs in each of 4 layers: those of `up`, and of `down`.
  assert (4, 16, 4) in kept
  assert (4, 16, 6) in kept
  assert sum(map(np.prod, kept)) < sum(map(np.prod, dense))


AXES = {
  "parameters at another axis": nnx.StateAxes(
    {nnx.All(nnx.Param, nnx.PathContains("up")): 1, ...: 0}
  ),
  "taps not cut": nnx.StateAxes({nnx.Param: 0, ...: None}),
}


@pytest.mark.parametrize(
  ("axes", "residual"), every_value(AXES, ["reset", "keep"])
)
def test_neurons_of_a_stack_cut_otherwise(axes, residual):
  tapped, plain, args = tapped_and_plain(
    filled(lambda: Stack(nnx.Rngs(0), axes=AXES[axes])),
    square,
    INPUTS[0],
    sampler="neuron",
    target="kernel",
    residual=residual,
  )
  compare(tapped, plain, args)
  dense = count_dense_gradients(tapped, args, (12, 20), (2, 10, 12))
  assert dense == (2 if axes == "taps not cut" else 0)


def test_neurons_of_an_ensemble():
  class Ensemble(nnx.Module):
    def __init__(self, rngs):
      make = nnx.vmap(lambda rngs: nnx.Linear(12, 20, rngs=rngs))
      self.members = nnx.split_rngs(splits=3)(make)(rngs)

    def __call__(self, x):
      run = nnx.vmap(lambda member, x: member(x), in_axes=(0, None))
      return jnp.tanh(run(self.members, x))

  tapped, plain, args = tapped_and_plain(
    filled(lambda: Ensemble(nnx.Rngs(0))),
    square,
    INPUTS[0],
    sampler="neuron",
    target="kernel",
  )
  assert count_dense_gradients(plain, args, (3, 12, 20)) == 1
  assert count_dense_gradients(tapped, args, (3, 12, 20)) == 0
  compare(tapped, plain, args)
