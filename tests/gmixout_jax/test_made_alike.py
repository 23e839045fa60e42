"""Tests what states say of the transformation that made them.

Two that were made alike have states of one structure, so that a jitted step
takes either; states made with other settings are refused.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

import gmixout_jax as gx
from tests.combinations import tried

PARAMS = {"a": {"kernel": jnp.ones((8, 20))}, "bias": jnp.zeros(20)}


def falling(episode, *, start):
  return start / (1.0 + episode)


def decay_from(start):
  return lambda episode: start * 0.5**episode


def named(*names):
  return lambda path, leaf: any(name in path for name in names)


class Period:
  """A schedule with state; two are alike if they say so."""

  def __init__(self, steps):
    self.steps = steps

  def __call__(self, episode):
    return self.steps + 0 * episode

  def __eq__(self, other):
    return isinstance(other, Period) and self.steps == other.steps

  __hash__ = None


# A factory of settings, and other factories whose settings differ from it.
ALIKE = {
  "numbers": (
    lambda: {"sparsity": 0.8, "resample_every": 3},
    lambda: {"sparsity": 0.7, "resample_every": 3},
    lambda: {"sparsity": 0.8, "resample_every": 4},
    lambda: {"sparsity": 0.8, "resample_every": None},
  ),
  "names": (
    lambda: {"sampler": "uniform", "residual": "keep"},
    lambda: {"sampler": "bernoulli", "residual": "keep"},
    lambda: {"sampler": "uniform", "residual": "reset"},
    lambda: {"sampler": "uniform", "residual": "keep", "rescale": False},
  ),
  "schedule of optax": (
    lambda: {"anchor_decay": optax.linear_schedule(0.5, 0.1, 10)},
    lambda: {"anchor_decay": optax.linear_schedule(0.5, 0.1, 11)},
    lambda: {"anchor_decay": optax.constant_schedule(0.5)},
    lambda: {"anchor_decay": 0.5},
  ),
  "closure": (
    lambda: {"anchor_decay": decay_from(0.5)},
    lambda: {"anchor_decay": decay_from(0.4)},
    lambda: {"anchor_decay": lambda episode: 0.5 * 0.5**episode},
  ),
  "partial": (
    lambda: {"anchor_decay": functools.partial(falling, start=0.5)},
    lambda: {"anchor_decay": functools.partial(falling, start=0.4)},
  ),
  "object": (
    lambda: {"resample_every": Period(3)},
    lambda: {"resample_every": Period(4)},
  ),
  "pattern": (lambda: {"target": "a/"}, lambda: {"target": "kernel"}),
  "predicate": (
    lambda: {"target": named("a", "c")},
    lambda: {"target": named("a", "d")},
    lambda: {"target": named("a")},
  ),
  "axes": (
    lambda: {"axes": lambda path, leaf: "oi"[: leaf.ndim]},
    lambda: {"axes": lambda path, leaf: "io"[: leaf.ndim]},
    lambda: {"axes": "torch"},
  ),
}
SETTINGS = {name: factories[0] for name, factories in ALIKE.items()}


def structures(settings, key=0):
  """Of a state of `gmixout`, and of `MixedParams`."""
  tx = gx.gmixout(optax.sgd(0.1), key=key, **settings)
  state = jax.eval_shape(tx.init, PARAMS)
  mixed = jax.eval_shape(
    lambda params: gx.MixedParams.create(params, key=key, **settings), PARAMS
  )
  return jax.tree.structure(state), jax.tree.structure(mixed)


@pytest.mark.parametrize("name", ALIKE)
def test_made_alike_they_have_one_structure(name):
  make, *others = ALIKE[name]
  expected = structures(make())
  # Key and constant λ are data.
  assert structures(make(), key=1) == expected
  if "anchor_decay" not in make():
    assert structures(make() | {"anchor_decay": 0.9}) == expected
  for other in others:
    for one, two in zip(structures(other()), expected, strict=True):
      assert one != two


@pytest.mark.parametrize(
  "name",  # all have one structure, as was just seen
  tried(
    ["closure", "partial", "object", "predicate"],
    lambda name: name in ("closure", "object"),
  ),
)
def test_a_step_is_not_compiled_again_for_one_made_again(name):
  def make():
    return gx.gmixout(optax.sgd(0.1), key=0, **SETTINGS[name]())

  first = make()

  @jax.jit
  def step(params, state):
    updates, state = first.update(params, state, params)
    return optax.apply_updates(params, updates), state

  @jax.jit
  def mixed_step(mixed):
    return mixed.apply_updates(mixed.trainable())

  for tx in (first, make()):
    params, state = PARAMS, tx.init(PARAMS)
    mixed = gx.MixedParams.create(PARAMS, key=0, **SETTINGS[name]())
    for _ in range(2):
      params, state = step(params, state)
      mixed = mixed_step(mixed)
  assert step._cache_size() == mixed_step._cache_size() == 1


@pytest.mark.parametrize(
  "make",
  [
    gx.gmixout,
    gx.mixout,
    gx.random_mask,
    lambda key: gx.MixedParams.create(PARAMS, key=key),
  ],
)
@pytest.mark.parametrize("key", [2**63, -(2**63) - 1, 2**200])
def test_integer_keys_out_of_range(make, key):
  with pytest.raises(ValueError, match=rf"key must be an int from .*{key}"):
    make(key=key)
  make(key=2**63 - 1)
  make(key=-(2**63))


def test_integer_keys_of_64_bits_are_all_different():
  keys = [0, 7, 2**32, 2**32 + 7, 2**63 - 1, -(2**40), np.int64(2**41)]
  masks = [
    np.asarray(gx.gmixout(key=key).init(PARAMS).key).tolist() for key in keys
  ]
  assert masks[:2] == [[0, 0], [0, 7]]
  assert len({tuple(mask) for mask in masks}) == len(keys)
  for key, found in zip(keys, masks, strict=True):
    assert gx.gmixout(key=np.array(key)).init(PARAMS).key.tolist() == found
    with jax.enable_x64(True):
      assert gx.gmixout(key=key).init(PARAMS).key.tolist() == found
      assert jax.random.key_data(jax.random.key(key)).tolist() == found


OTHERS = [
  {"sparsity": 0.5},
  {"sampler": "uniform"},
  {"sampler": "neuron"},
  {"residual": "keep"},
  {"moments": "reset"},
  {"rescale": False},
  {"resample_every": None},
  {"resample_every": 3},
  {"anchor_decay": optax.constant_schedule(0.3)},
  {"target": "kernel"},
  {"axes": "torch"},
]


@pytest.mark.parametrize("other", OTHERS, ids="-".join)
def test_a_state_made_with_other_settings_is_refused(other):
  tx = gx.gmixout(optax.sgd(0.1), key=0)
  state = gx.gmixout(optax.sgd(0.1), key=0, **other).init(PARAMS)
  ((name, _),) = other.items()
  with pytest.raises(ValueError, match=rf"leaf 'a/kernel' .* with {name}="):
    jax.eval_shape(tx.update, PARAMS, state, PARAMS)
  with pytest.raises(ValueError, match=rf"leaf 'a/kernel' .* with {name}="):
    jax.eval_shape(
      gx.gmixout(optax.sgd(0.1), key=0, **other).update,
      PARAMS,
      tx.init(PARAMS),
      PARAMS,
    )


class Opaque:
  """A schedule that nobody can compare."""

  def __call__(self, episode):
    return 0.5 + 0 * episode


def test_what_may_differ_is_not_refused():
  """λ, the key, and objects of one class that nobody can compare."""
  for one, other in (
    ({"key": 0, "anchor_decay": 0.2}, {"key": 1, "anchor_decay": 0.4}),
    (
      {"key": 0, "anchor_decay": Opaque()},
      {"key": 0, "anchor_decay": Opaque()},
    ),
  ):
    state = gx.gmixout(optax.sgd(0.1), **one).init(PARAMS)
    tx = gx.gmixout(optax.sgd(0.1), **other)
    jax.eval_shape(tx.update, PARAMS, state, PARAMS)


def restored(state, settings):
  """The arrays of a state where one with other settings is expected."""
  return dataclasses.replace(
    state, settings=gx.gmixout(key=0, **settings).init(PARAMS).settings
  )


@pytest.mark.parametrize(
  "other",
  [{"sparsity": 0.5}, {"sampler": "uniform"}, {"sampler": "neuron"},
   {"residual": "keep"}],
  ids=str,
)  # fmt: skip
@pytest.mark.parametrize("back", [False, True])
def test_arrays_of_other_settings_are_refused(other, back):
  """A restored state says nothing but by its shapes."""
  settings, made = ({}, other) if back else (other, {})
  tx = gx.gmixout(optax.sgd(0.1), key=0, **settings)
  state = gx.gmixout(optax.sgd(0.1), key=0, **made).init(PARAMS)
  state = restored(state, settings)
  for use in (
    lambda: tx.update(PARAMS, state, PARAMS),
    lambda: gx.gmixout_eval_params(state, PARAMS),
    lambda: gx.gmixout_masks(state, PARAMS),
  ):
    with pytest.raises(ValueError, match=r"leaf 'a/kernel' of shape \(8, 20\)"):
      jax.eval_shape(use)


def test_bytes_of_another_sparsity_are_refused():
  tx = gx.gmixout(optax.adam(0.1), key=0, sparsity=0.5)
  data = serialization.to_bytes(
    gx.gmixout(optax.adam(0.1), key=0, sparsity=0.8).init(PARAMS)
  )
  with pytest.raises(ValueError, match="a/kernel"):
    tx.update(PARAMS, serialization.from_bytes(tx.init(PARAMS), data), PARAMS)
