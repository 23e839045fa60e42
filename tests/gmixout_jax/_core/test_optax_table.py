"""Runs every row of `optax_table`: every optimizer there is, inside and around.

A quadratic of a matrix, half of which is mixed, and a vector that is not. The
references are optimizers that restart in other ways, through the packed form.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from tests.combinations import every_value, tried
from tests.gmixout_jax._core.optax_optimizers import OPTIMIZERS
from tests.gmixout_jax._core.optax_parts import PARTS, WRAPPERS
from tests.gmixout_jax._core.optax_table import (
  PAGE,
  ROWS,
  page_with_table,
  public_optimizers,
)
from tests.gmixout_jax.small_tree import types

STEPS, PERIOD = 200, 10
SETTINGS = {"resample_every": PERIOD, "sparsity": 0.5, "target": "kernel"}
TARGET = {
  "kernel": jax.random.normal(jax.random.key(1), (6, 20)),
  "bias": jax.random.normal(jax.random.key(2), (20,)),
}
CURVATURE = jnp.logspace(-0.7, 0, 20)
PARAMS = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), TARGET)
# Of many kinds; the other optimizers are tried where each has its own row.
SOME = {
  f"optax.{name}" for name in ("adafactor", "adamw", "contrib.muon", "sgd")
}
SIMPLE = SOME - {"optax.contrib.muon"}  # which takes the longest
DTYPES = ["float32", "bfloat16", "float16", "float64"]
# What others are or do, too: parts of optimizers, and three optimizers.
LIKE_ANOTHER = {"optax.contrib.galore", "optax.contrib.schedule_free_adamw",
                "optax.lars", *PARTS} - {
  "optax.add_decayed_weights", "optax.monitor"
}  # fmt: skip
SAME_WRAPPERS = {  # other names or forms of wrappers that are tried
  f"optax.{name}"
  for name in (
    *("conditionally_mask", "inject_stateful_hyperparams", "multi_transform"),
    *("named_chain", "with_extra_args_support"),
  )
}
PEEKING = [  # those whose state holds weights, or an estimate of scale
  name for name, row in ROWS.items() if "restart" in row.inside
]

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")

gmixout = functools.partial(gx.gmixout, key=0, **SETTINGS)


@pytest.fixture(autouse=True)
def _as_optax_has_it():
  """One part multiplies a vector of length one with matrices."""
  with jax.numpy_rank_promotion("allow"):
    yield


def loss(params):
  square = lambda one, other: jnp.square(one.astype(jnp.float32) - other)
  return 0.5 * (
    jnp.sum(CURVATURE[None, :] * square(params["kernel"], TARGET["kernel"]))
    + jnp.sum(CURVATURE * square(params["bias"], TARGET["bias"]))
  )


START = float(loss(PARAMS))


def repeat(step, carry, scans, *counts):
  """What there is after each of some counts of steps, of one program."""

  @jax.jit
  def scan(carry, steps):
    return jax.lax.fori_loop(0, steps, lambda _, c: step(c), carry)

  one = jax.jit(step)
  for done, count in itertools.pairwise((0, *counts)):
    if scans:
      carry = scan(carry, count - done)
    else:
      for _ in range(count - done):
        carry = one(carry)
    yield carry


def trained(tx, row, *counts):
  """After some counts of steps of `tx`: live and evaluation weights, state."""
  tx = optax.with_extra_args_support(tx)
  pairs = row is ROWS["optax.lookahead"]

  def step(carry):
    params, state = carry
    value, grads = jax.value_and_grad(loss)(params.fast if pairs else params)
    extra = {name: {"value": value, "obj_fn": loss}[name] for name in row.told}
    updates, state = tx.update(grads, state, params, **extra)
    return optax.apply_updates(params, updates), state

  params = optax.LookaheadParams.init_synced(PARAMS) if pairs else PARAMS
  start = params, tx.init(params)
  return [
    (params.fast, params.slow, state)
    if pairs
    else (params, gx.gmixout_eval_params(state, params), state)
    for params, state in repeat(step, start, row.scans, *counts)
  ]


def left(params):
  """What is left of the loss, as a fraction."""
  return float(loss(params)) / START


@functools.cache
def left_inside(name, moments):
  """By a row's optimizer in `gmixout`."""
  row = ROWS[name]
  ((_, params, _),) = trained(gmixout(row.make(), moments=moments), row, STEPS)
  return left(params)


def learns_inside(name, moments, below=0.7):
  """False also where it complains."""
  try:
    return left_inside(name, moments) < below
  except (AttributeError, TypeError, ValueError):
    return False


def around(row):
  if row.wrap is not None:
    return row.wrap(gmixout(optax.sgd(0.3)))
  return optax.chain(row.make(), gmixout())


def right_around(row, below=0.7):
  """Whether it learns without a complaint, and moves nothing off the mask.

  It might in the third episode, whose entries are not those of the ones before.
  """
  third = 2 * PERIOD
  try:
    (before, _, state), (after, *_), (_, params, _) = trained(
      around(row), row, third, third + 4, STEPS
    )
  except (AttributeError, TypeError, ValueError):
    return False
  mask = np.asarray(gx.gmixout_masks(state, before)["kernel"])
  return left(params) < below and np.allclose(
    np.asarray(before["kernel"])[~mask],
    np.asarray(after["kernel"])[~mask],
    rtol=0,
    atol=1e-6,
  )


def test_every_optimizer_of_optax_has_a_row():
  """One that a later Optax adds fails this until it is tried and listed."""
  assert set(public_optimizers()) == set(ROWS)
  assert len(ROWS) == len(OPTIMIZERS) + len(PARTS) + len(WRAPPERS)


def test_the_page_shows_the_table():
  page = PAGE.read_text()
  assert page == page_with_table(page)


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",  # most have nothing of their own to say
  tried(
    ROWS,
    lambda name: (
      name in SOME or (name not in LIKE_ANOTHER and bool(ROWS[name].inside))
    ),
  ),
)
def test_inside(name):
  row = ROWS[name]
  if row.inside.startswith("no:"):
    assert not learns_inside(name, "carry", below=0.8)
    return
  assert left_inside(name, "carry") < 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",
  tried(
    [
      name
      for name, row in ROWS.items()
      if not row.inside.startswith("no:") and name not in PARTS
    ],
    # What restarts is the whole state then, whatever is in it.
    lambda name: name in SIMPLE or not ROWS[name].resets,
  ),
)
def test_inside_with_moments_that_restart(name):
  """Parts are in the optimizers, most of which do in this as others."""
  assert learns_inside(name, "reset") == ROWS[name].resets


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",  # most have nothing of their own to say
  tried(
    [n for n, row in ROWS.items() if not row.around.startswith("not advised")],
    lambda name: (
      name in SIMPLE
      or (name in WRAPPERS and name not in SAME_WRAPPERS)
      or (name not in LIKE_ANOTHER and bool(ROWS[name].around))
    ),
  ),
)
def test_around(name):
  row = ROWS[name]
  assert right_around(row) == (not row.around.startswith("no"))


@pytest.mark.parametrize(
  ("name", "dtype"),
  [
    *every_value([name for name in ROWS if name not in PARTS], DTYPES),
    # Optimizers are made of these.
    *tried(itertools.product(PARTS, DTYPES), lambda *_: False),
  ],
)
def test_a_state_keeps_its_types(name, dtype):
  """From the first step on, where those of the optimizer alone are kept."""
  row = ROWS[name]
  if row.inside.startswith("no:"):
    pytest.skip(row.inside)
  extra = dict.fromkeys(row.told, jax.ShapeDtypeStruct((), jnp.float32))

  def kept(tx):
    tx = optax.with_extra_args_support(tx)
    state = jax.eval_shape(tx.init, params)
    _, after = jax.eval_shape(
      lambda grads, state, params, extra: tx.update(
        grads, state, params, **extra
      ),
      params,
      state,
      params,
      extra,
    )
    return jax.tree.structure(state) == jax.tree.structure(after) and (
      types(state) == types(after)
    )

  with jax.enable_x64(dtype == "float64"):
    params = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), PARAMS
    )
    try:
      alone = kept(row.make())
    except (TypeError, ValueError):
      alone = False
    if not alone:
      pytest.skip("alone it does not")
    assert kept(gmixout(row.make()))
    if row.resets:
      assert kept(gmixout(row.make(), moments="reset"))


def restarting(row, restarts):
  """What is left where what `restarts` says begins anew in every episode."""
  tx = optax.with_extra_args_support(row.make())
  restart = restarts(tx)
  mixed = gx.MixedParams.create(PARAMS, key=0, **SETTINGS)

  def step(carry):
    mixed, state = carry
    trainable = mixed.trainable()
    starts = mixed.count % PERIOD == 0
    state = jax.tree.map(
      lambda old, new: jnp.where(starts, new, old),
      state,
      restart(state, tx.init(trainable)),
    )
    of_mixed = lambda trainable: loss(mixed.inject(trainable))
    value, grads = jax.value_and_grad(of_mixed)(trainable)
    extra = dict.fromkeys(row.told, value)
    updates, state = tx.update(grads, state, trainable, **extra)
    return mixed.apply_updates(updates), state

  start = mixed, tx.init(mixed.trainable())
  ((mixed, _),) = repeat(step, start, row.scans, STEPS)
  return left(mixed.eval_params())


def all_of_it(tx):
  del tx
  return lambda old, new: new


def what_depends_on_mixed_values(tx):
  """By trying: what two residuals make `init` give differs there."""
  of_twos, of_ones = (
    tx.init(
      {
        "kernel": np.full((6, 10), fill, np.float32),
        "bias": np.asarray(PARAMS["bias"]),
      }
    )
    for fill in (2, 1)
  )
  differs = jax.tree.map(
    lambda one, two: bool((one != two).any()), of_ones, of_twos
  )
  return lambda old, new: jax.tree.map(
    lambda yes, o, n: n if yes else o, differs, old, new
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", tried(PEEKING, lambda name: name not in LIKE_ANOTHER)
)
def test_what_restarts_is_well_chosen(name):
  row = ROWS[name]
  references = [
    restarting(row, restarts)
    for restarts in (all_of_it, what_depends_on_mixed_values)
  ]
  assert left_inside(name, "carry") < 1.3 * np.nanmin(references)


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",
  tried(
    [name for name in OPTIMIZERS if name not in PEEKING],
    lambda name: name in SIMPLE,
  ),
)
def test_moments_carried_or_restarted_are_as_good_as_a_new_start(name):
  row = ROWS[name]
  if row.inside.startswith("no:") or not row.resets:
    pytest.skip(row.inside)
  ours = min(left_inside(name, moments) for moments in ("carry", "reset"))
  assert ours < 1.3 * restarting(row, all_of_it)
