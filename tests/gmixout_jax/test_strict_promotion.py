"""Tests that everything runs where dtypes are not promoted.

Promotion is a matter of tracing, so that most of these only trace.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
import pallas_kernels
from gmixout_jax import averaging
from gmixout_jax._core.inner_optimizer import with_extra_args
from pallas_kernels.packed_step import api as packed_step_api
from tests.combinations import EXHAUSTIVE, every_pair, tried
from tests.gmixout_jax._core.optax_optimizers import OPTIMIZERS
from tests.gmixout_jax._core.optax_parts import WRAPPERS
from tests.gmixout_jax._core.optax_table import ROWS
from tests.gmixout_jax.small_tree import RESIDUALS, SAMPLERS, types

pytestmark = pytest.mark.usefixtures("strict_promotion")

DTYPES = ["float32", "bfloat16"]
SETTINGS = {"key": 0, "sparsity": 0.75, "resample_every": 2}
RULES = (("^kernel", "mixed"), ("^bias", "dense"), ("^frozen", "frozen"))


def make_params(dtype):
  return {
    "kernel": jnp.linspace(-1, 1, 128, dtype=dtype).reshape(8, 16),
    "bias": jnp.ones(16, dtype),
  }


def shapes(dtype):
  return jax.eval_shape(lambda: make_params(dtype))


def loss(params):
  return sum(
    jnp.sum(jnp.square(leaf.astype(jnp.float32) - 0.5))
    for leaf in jax.tree.leaves(params)
  )


def told(row, value):
  return {name: {"value": value, "obj_fn": loss}[name] for name in row.told}


def run(tx, params, row=ROWS["optax.sgd"], steps=1):
  """Weights and state after some steps."""
  tx = with_extra_args(tx)
  state = tx.init(params)
  for _ in range(steps):
    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grads, state, params, **told(row, value))
    params = optax.apply_updates(params, updates)
  return params, state


def run_mixed(tx, params, row=ROWS["optax.sgd"], steps=1, **settings):
  """`MixedParams` and the optimizer's state after some steps."""
  mixed = gx.MixedParams.create(params, **SETTINGS, **settings)
  state = tx.init(mixed.trainable())
  for _ in range(steps):
    value, grads = mixed.value_and_grad(loss)()
    mixed, state = mixed.apply_gradients(tx, grads, state, **told(row, value))
  return mixed, state


def traces(function, *args):
  try:
    jax.eval_shape(function, *args)
  except jax.dtypes.TypePromotionError:
    return False
  return True


def test_the_fixture_is_strict():
  with pytest.raises(jax.dtypes.TypePromotionError):
    jnp.ones(2, jnp.bfloat16) + jnp.ones(2, jnp.float32)


MAKE = {
  **{
    f"gmixout-{residual}": functools.partial(
      gx.gmixout, residual=residual, **SETTINGS
    )
    for residual in RESIDUALS
  },
  "mixout": functools.partial(gx.mixout, key=0, sparsity=0.75),
  "random_mask": functools.partial(gx.random_mask, key=0, sparsity=0.75),
  "schedules": functools.partial(
    gx.gmixout,
    key=0,
    resample_every=optax.constant_schedule(2),
    anchor_decay=optax.linear_schedule(0.5, 0.0, 10),
  ),
}


@pytest.mark.parametrize(
  ("make", "sampler", "dtype"),
  every_pair(MAKE, SAMPLERS, [*DTYPES, "float16", "float64"]),
)
def test_transformations(make, sampler, dtype):
  with jax.enable_x64(dtype == "float64"):
    tx = MAKE[make](optax.sgd(0.1, momentum=0.9), sampler=sampler)

    def shown(params):
      after, state = run(tx, params)
      evaluated = gx.gmixout_eval_params(state, after)
      return after, evaluated, gx.gmixout_masks(state, after)

    params = shapes(dtype)
    after, evaluated, masks = jax.eval_shape(shown, params)
    assert types(after) == types(evaluated) == types(params)
  assert {leaf.dtype for leaf in jax.tree.leaves(masks)} == {np.dtype(bool)}


@pytest.mark.slow
@pytest.mark.parametrize(
  ("residual", "dtype"),
  [
    ("reset", "bfloat16"),
    pytest.param("keep", "float32", marks=EXHAUSTIVE),
  ],
)
def test_it_computes_what_it_does_where_dtypes_are_promoted(residual, dtype):
  tx = gx.gmixout(optax.sgd(0.1, momentum=0.9), residual=residual, **SETTINGS)
  params = make_params(dtype)
  step = functools.partial(run, tx, steps=3)
  strict = jax.jit(step)(params)
  with jax.numpy_dtype_promotion("standard"):
    standard = jax.jit(step)(params)
  jax.tree.map(np.testing.assert_array_equal, strict, standard)
  assert not np.array_equal(strict[0]["kernel"], params["kernel"])


@pytest.mark.parametrize(
  ("residual", "sampler", "dtype"), every_pair(RESIDUALS, SAMPLERS, DTYPES)
)
def test_mixed_params(residual, sampler, dtype):
  def shown(params):
    mixed, state = run_mixed(
      optax.sgd(0.1, momentum=0.9),
      params,
      sampler=sampler,
      residual=residual,
      target=RULES,
    )
    pieces = mixed.apply_updates(
      jax.grad(lambda t: loss(mixed.inject(t)))(mixed.trainable())
    )
    return mixed, state, pieces, mixed.eval_params(), mixed.masks()

  params = shapes(dtype)
  params["frozen"] = params["kernel"]
  mixed, _, pieces, evaluated, _ = jax.eval_shape(shown, params)
  assert types(mixed) == types(pieces)
  assert types(mixed.params) == types(evaluated) == types(params)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.1, optax.linear_schedule(0.1, 0.0, 10)])
def test_fused_adamw(rate, dtype):
  """Though `optax.adamw`, which steps the unmixed leaves, does not run."""
  tx, params = gx.FusedAdamW(learning_rate=rate), shapes(dtype)
  assert not traces(functools.partial(run, optax.adamw(0.1)), params)
  params["frozen"] = params["kernel"]
  step = functools.partial(run_mixed, tx, target=RULES)
  mixed, _ = jax.eval_shape(step, params)
  assert types(mixed.params) == types(params)


RUNS = {
  "inside": lambda row: functools.partial(
    run, gx.gmixout(row.make(), **SETTINGS), row=row
  ),
  "restarted": lambda row: functools.partial(
    run, gx.gmixout(row.make(), moments="reset", **SETTINGS), row=row
  ),
  "packed": lambda row: functools.partial(run_mixed, row.make(), row=row),
  "around": lambda row: functools.partial(
    run,
    row.wrap(gx.gmixout(optax.sgd(0.1), **SETTINGS))
    if row.wrap
    else optax.chain(row.make(), gx.gmixout(**SETTINGS)),
    row=row,
  ),
}


@functools.cache
def runs_alone(name, dtype):
  row = ROWS[name]
  if row.inside.startswith("no:"):
    return False
  with jax.numpy_rank_promotion("allow"):
    return traces(functools.partial(run, row.make(), row=row), shapes(dtype))


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_many_optimizers_run_alone():
  """Adam does not: Optax raises a float to an integer count."""
  alone = {name for name in ROWS if runs_alone(name, "float32")}
  assert len(alone) > 40
  assert {"optax.sgd", "optax.lion", "optax.contrib.schedule_free"} <= alone
  assert "optax.adam" not in alone


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize(
  "name",
  # Of optimizers that have nothing of their own to say, two.
  tried(
    ROWS,
    lambda name: (
      name in ("optax.adam", "optax.sgd", *WRAPPERS)
      or (name in OPTIMIZERS and bool(ROWS[name].inside))
    ),
  ),
)
def test_optimizers_that_run_alone(name):
  row = ROWS[name]
  kinds = ["inside", "packed"]
  if not row.around.startswith("no"):
    kinds.append("around")
  if row.resets:
    kinds.append("restarted")
  for dtype in DTYPES:
    if not runs_alone(name, dtype):
      continue
    with jax.numpy_rank_promotion("allow"):
      for kind in kinds:
        jax.eval_shape(RUNS[kind](row), shapes(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels(dtype):
  trained = jax.ShapeDtypeStruct((6, 40), dtype)
  key, by = jax.random.key(0), {"kept": 0.25, "implementation": "xla"}

  def everything(trained):
    packed = pallas_kernels.pack(trained, key, **by)
    mixed = [
      pallas_kernels.masked_mix(trained, residual, key, sampler=sampler, **by)
      for sampler, residual in (("stratified", packed), ("bernoulli", trained))
    ]
    stepped = [
      pallas_kernels.packed_step(
        trained,
        gradient,
        packed_step_api.init(trained, kept=0.25),
        key,
        count=jnp.int32(3),
        learning_rate=0.1,
        starts=jnp.bool_(True),
        packed_gradient=gradient is packed,
        **by,
      )
      for gradient in (trained, packed)
    ]
    return mixed, stepped

  def total(trained):
    (one, two), _ = everything(trained)
    return jnp.sum(one.astype(jnp.float32)) + jnp.sum(two.astype(jnp.float32))

  mixed, stepped = jax.eval_shape(everything, trained)
  for leaf in (*mixed, *(weights for weights, _ in stepped)):
    assert jax.typeof(leaf) == jax.typeof(trained)
  jax.eval_shape(jax.grad(total), trained)


@pytest.mark.parametrize(
  "dtype", tried(DTYPES, lambda dtype: dtype == "bfloat16")
)
def test_averages(dtype):
  one = make_params(dtype)
  two, three = (jax.tree.map(lambda x, k=k: k * x, one) for k in (3, 5))
  score = lambda tree: 1.0 + float(tree["kernel"].astype(jnp.float32).max())
  groups = averaging.components([one, two], 1)
  tx = averaging.average(
    gx.gmixout(optax.sgd(0.1), **SETTINGS), rate=averaging.exponential(0.9)
  )
  after, state = run(tx, one, steps=2)
  trees = {
    "interpolate": averaging.interpolate(one, two, 0.5),
    "mean": averaging.mean([one, two, three], [0.5, 0.25, 0.25]),
    "mix_leaves": averaging.mix_leaves([one, two], jnp.array([0.5, 0.5])),
    "mix_components": averaging.mix_components(
      one, two, groups, dict.fromkeys(groups, 0.5)
    ),
    "model_stock": averaging.model_stock(one, [two, three]).params,
    "greedy_soup": averaging.greedy_soup([one, two, three], score).params,
    "learned_soup": averaging.learned_soup(
      [one, two], lambda tree, scale, batch: scale * loss(tree), [None]
    ).params,
    "average": averaging.average_params(state, after),
  }
  for name, tree in trees.items():
    assert types(tree) == types(one), name
