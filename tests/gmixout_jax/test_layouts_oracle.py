"""Tests every layout of a leaf against float64 NumPy and `optax.lookahead`.

All layouts are leaves of one tree, so that each program is compiled once.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from tests.combinations import EXHAUSTIVE, tried
from tests.gmixout_jax import oracle

pytestmark = pytest.mark.slow

# Shape and letters of the axes. At sparsity 0.9 the rows of all but the first
# two are too short, and are merged.
LAYOUTS = {
  "flax": ((12, 20), "io"),
  "torch": ((20, 12), "oi"),
  "to_heads": ((12, 3, 4), "ioo"),
  "from_heads": ((3, 4, 12), "iio"),
  "conv": ((3, 3, 6, 5), "ssio"),
  "torch_conv": ((5, 6, 3, 3), "oiss"),
  "stack": ((3, 8, 10), "lio"),
  "stack_to_heads": ((3, 8, 2, 5), "lioo"),
  "odd": ((8, 13), "oi"),
  "one_by_one": ((12, 10, 1, 1), "oiss"),
  "two_classes": ((192, 2), "io"),
}
# Of each kind one; whole inputs are tried with all.
KINDS = (
  *("flax", "to_heads", "from_heads", "torch_conv", "stack_to_heads", "odd"),
)
ALL = tuple(LAYOUTS)
kinds = pytest.mark.parametrize(
  "names", [KINDS, pytest.param(ALL, marks=EXHAUSTIVE)], ids=["kinds", "all"]
)
STEPS, PERIOD, DECAY, RATE = 5, 2, 0.4, 0.05


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


@functools.cache
def problem(names=ALL):
  """Weights, and functions weights -> gradient that mix all of a leaf."""
  rng = np.random.default_rng(0)
  weights = {name: rng.normal(size=LAYOUTS[name][0]) for name in names}

  def gradient(target, w):
    return np.tanh(w - target) + 0.1 * np.tanh(w.sum())

  gradients = {
    name: functools.partial(gradient, rng.normal(size=w.shape))
    for name, w in weights.items()
  }
  return weights, gradients


def letters(path, leaf):
  del leaf
  return LAYOUTS[path][1]


def trajectory(
  tx, names=ALL, *, steps=STEPS, eval_params=gx.gmixout_eval_params
):
  """(live, deployed) after each step, and the state before the first."""
  weights, gradients = problem(names)
  params = jax.tree.map(jnp.asarray, weights)
  before = state = tx.init(params)
  update, evaluated = jax.jit(tx.update), jax.jit(eval_params)
  done = []
  for _ in range(steps):
    grads = {
      n: jnp.asarray(gradients[n](np.asarray(params[n]))) for n in params
    }
    updates, state = update(grads, state, params)
    params = optax.apply_updates(params, updates)
    done.append(jax.device_get((params, evaluated(state, params))))
  return done, before


def all_masks(state, names=ALL):
  """Function episode -> boolean masks."""
  weights, _ = problem(names)
  period = state.settings.resample_every or 1

  @jax.jit
  def draw(count):
    return gx.gmixout_masks(dataclasses.replace(state, count=count), weights)

  return functools.cache(
    lambda episode: jax.device_get(draw(jnp.int32(period * episode)))
  )


def masks_of(masks, state, name, names=ALL):
  """Functions episode -> boolean mask, and -> flat positions by slot."""
  weights, _ = problem(names)
  mix = state.settings.mixed_leaf(name, weights[name])
  numbered = 1 + np.arange(weights[name].size).reshape(weights[name].shape)
  mask = lambda episode: masks(episode)[name]

  def order(episode):
    """Packed arrays keep the order of their axes, the drawn entries sorted.

    Of whole inputs the axis of inputs is cut; all else is row by row.
    """
    active = mask(episode)
    if state.settings.sampler != "neuron":
      return np.flatnonzero(active)
    _, axes = LAYOUTS[name]
    first, last = axes.index("i"), axes.rindex("i") + 1
    merged = numbered.reshape(
      *numbered.shape[:first], -1, *numbered.shape[last:]
    )
    active = active.reshape(merged.shape)
    if "l" not in axes:
      others = tuple(i for i in range(active.ndim) if i != first)
      return merged.compress(active.all(axis=others), axis=first).ravel() - 1
    layers = [
      layer.compress(
        drawn.all(axis=tuple(i for i in range(drawn.ndim) if i != first - 1)),
        axis=first - 1,
      )
      for layer, drawn in zip(merged, active, strict=True)
    ]
    return np.stack(layers).ravel() - 1

  return mask, order, mix


def assert_follows(done, name, expected):
  for step, (ours, theirs) in enumerate(zip(done, expected, strict=True)):
    for one, other in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(
        one[name], other, rtol=1e-10, atol=1e-12, err_msg=f"{name}, {step}"
      )


@pytest.mark.parametrize(
  ("sampler", "moments", "names"),
  [
    ("stratified", "carry", KINDS),
    ("neuron", "reset", ALL),
    *(
      pytest.param(sampler, moments, ALL, marks=EXHAUSTIVE)
      for sampler, moments in (
        *(("stratified", "carry"), ("stratified", "reset")),
        ("neuron", "carry"),
      )
    ),
  ],
)
def test_gmixout(sampler, moments, names):
  tx = gx.gmixout(
    optax.adamw(RATE, weight_decay=0.1), key=0, anchor_decay=DECAY,
    resample_every=PERIOD, sampler=sampler, moments=moments, axes=letters,
  )  # fmt: skip
  done, state = trajectory(tx, names)
  weights, gradients = problem(names)
  masks = all_masks(state, names)
  for name in names:
    mask, order, mix = masks_of(masks, state, name, names)
    slots = mask(0).sum()
    assert 0.05 < slots / weights[name].size < 0.2
    assert not np.array_equal(mask(0), mask(1))
    expected = oracle.gmixout(
      weights[name], gradients[name], mask,
      inner=oracle.AdamW(slots, RATE, 0.1), slots=slots,
      s=slots / weights[name].size, decay=lambda _: DECAY,
      period=lambda _: PERIOD, steps=STEPS, restart=moments == "reset",
      order=order,
    )  # fmt: skip
    assert_follows(done, name, expected)
    assert mix.divisor == pytest.approx(slots / weights[name].size)


@kinds
@pytest.mark.parametrize(
  "sampler", tried(["stratified", "neuron"], lambda name: name == "neuron")
)
def test_mixout(sampler, names):
  inner = optax.adamw(RATE, weight_decay=0.1)
  tx = gx.mixout(inner, sparsity=0.9, key=0, sampler=sampler, axes=letters)
  done, state = trajectory(tx, names)
  weights, gradients = problem(names)
  masks = all_masks(state, names)
  for name in names:
    mask, _, _ = masks_of(masks, state, name, names)
    expected = oracle.mixout(
      weights[name], gradients[name], mask,
      inner=oracle.AdamW(weights[name].size, RATE, 0.1),
      s=mask(0).mean(), steps=STEPS,
    )  # fmt: skip
    assert_follows(done, name, expected)


@kinds
@pytest.mark.parametrize(
  "sampler", tried(["stratified", "neuron"], lambda name: name == "stratified")
)
def test_random_mask(sampler, names):
  tx = gx.random_mask(
    optax.adam(RATE), sparsity=0.9, key=0, sampler=sampler, axes=letters
  )
  done, state = trajectory(tx, names)
  weights, gradients = problem(names)
  masks = all_masks(state, names)
  for name in names:
    mask, order, _ = masks_of(masks, state, name, names)
    slots = mask(0).sum()
    expected = oracle.gmixout(
      weights[name], gradients[name], mask, inner=oracle.AdamW(slots, RATE),
      slots=slots, s=1.0, decay=lambda _: 0.0, period=lambda _: 10**9,
      steps=STEPS, order=order,
    )  # fmt: skip
    assert_follows(done, name, expected)


@kinds
@pytest.mark.parametrize(
  ("sampler", "inner"),
  tried(
    [
      ("stratified", optax.adam(RATE)),
      ("neuron", optax.adam(RATE)),
      ("uniform", optax.sgd(RATE)),  # slots in another order after each draw
    ],
    lambda sampler, _: sampler == "uniform",
  ),
)
def test_without_sparsity_it_is_lookahead(sampler, inner, names):
  tx = gx.gmixout(
    inner, sparsity=0.0, anchor_decay=0.3, resample_every=PERIOD, key=0,
    sampler=sampler, axes=letters,
  )  # fmt: skip
  done, _ = trajectory(tx, names)
  weights, gradients = problem(names)
  lookahead = optax.lookahead(inner, sync_period=PERIOD, slow_step_size=0.7)
  pair = optax.LookaheadParams.init_synced(jax.tree.map(jnp.asarray, weights))
  state = lookahead.init(pair)
  update = jax.jit(lookahead.update)
  for step, (live, deployed) in enumerate(done, 1):
    grads = {
      n: jnp.asarray(gradients[n](np.asarray(pair.fast[n]))) for n in weights
    }
    updates, state = update(grads, state, pair)
    pair = optax.apply_updates(pair, updates)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10)
    jax.tree.map(close, live, jax.device_get(pair.fast))
    if step % PERIOD == 0:
      jax.tree.map(close, deployed, jax.device_get(pair.slow))


@EXHAUSTIVE
def test_without_sparsity_its_neighbours_are_the_inner_optimizer():
  adam = optax.adam(RATE)
  expected, _ = trajectory(adam, eval_params=lambda state, params: params)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
  for make in (gx.mixout, gx.random_mask):
    tx = make(adam, sparsity=0.0, key=0, sampler="neuron", axes=letters)
    done, _ = trajectory(tx)
    jax.tree.map(close, done, expected)
