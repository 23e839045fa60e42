"""Tests `value_and_grad` and `apply_gradients` of `MixedParams`.

The references are `jax.value_and_grad` of the dense loss, the loop over
`trainable`, `inject` and `apply_updates`, and `gmixout`.
"""

import functools

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from tests.combinations import EXHAUSTIVE, every_value, tried
from tests.gmixout_jax.mixed_runs import (
  BATCH,
  BATCHES,
  INNER,
  PARAMS,
  RULES,
  SAMPLERS,
  STEPS,
  assert_same_end,
  assert_same_trajectory,
  create,
  jit,
  kept_fraction,
  loss,
  packed_gradient,
  run,
  run_mixed,
  run_transform,
  trajectory_of_gmixout,
  transform,
)

exactly = functools.partial(jax.tree.map, np.testing.assert_array_equal)


def step_in_one(tx, mixed, state, batch, told=()):
  """The step that the docstring of `MixedParams` shows."""
  value, grads = mixed.value_and_grad(loss)(batch)
  extra = dict.fromkeys(told, value)
  return mixed.apply_gradients(tx, grads, state, **extra)


def step_by_step(tx, mixed, state, batch, told=()):
  """The same with all pieces in the user's hands."""
  trainable = mixed.trainable()
  value, grads = jax.value_and_grad(
    lambda trainable: loss(mixed.inject(trainable), batch)
  )(trainable)
  if isinstance(tx, gx.FusedAdamW):
    return tx.step(mixed, grads, state)
  extra = dict.fromkeys(told, value)
  updates, state = tx.update(grads, state, trainable, **extra)
  stepped = True
  if isinstance(tx, optax.MultiSteps):
    stepped = tx.has_updated(state)
  return mixed.apply_updates(updates, stepped=stepped), state


@pytest.mark.slow
@pytest.mark.parametrize(
  ("sampler", "residual"),
  # Uniform masks are packed as Bernoulli's, which do not fill their slots.
  tried(
    [*((s, "reset") for s in SAMPLERS), ("stratified", "keep")],
    lambda sampler, _: sampler != "uniform",
  ),
)
def test_it_is_value_and_grad_of_the_dense_loss(sampler, residual):
  with jax.enable_x64(True):
    double = functools.partial(jnp.asarray, dtype=jnp.float64)
    params, batch = jax.tree.map(double, (PARAMS, BATCH))

    def with_aux(params, batch, *, scale):
      return scale * loss(params, batch), {"seen": params["head"]["bias"]}

    @jit
    def both(params, batch):
      mixed = create(
        params, sampler=sampler, residual=residual, target="blocks/1"
      )
      ours = mixed.value_and_grad(with_aux, has_aux=True)(batch, scale=2.0)
      theirs = jax.value_and_grad(with_aux, has_aux=True)(
        params, batch, scale=2.0
      )
      return ours, theirs, mixed.masks()

    ours, theirs, masks = jax.device_get(both(params, batch))

  assert ours[0][0] == pytest.approx(theirs[0][0], rel=1e-14)
  exactly(ours[0][1], theirs[0][1])
  expected = theirs[1]
  kernel, mask = (tree["blocks"][1]["kernel"] for tree in (expected, masks))
  if residual == "keep":
    kernel = np.where(mask, kernel / kept_fraction(sampler, 20, 16), 0)
  else:
    kernel = packed_gradient(sampler, kernel, mask, episode=0)
  expected["blocks"][1]["kernel"] = kernel
  close = functools.partial(np.testing.assert_allclose, rtol=1e-10)
  jax.tree.map(close, ours[1], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("tx", "told", "settings"),
  [
    pytest.param(optax.adamw(0.01), (), {}, marks=EXHAUSTIVE),
    pytest.param(
      optax.sgd(0.02),
      (),
      {"target": RULES, "residual": "keep"},
      marks=EXHAUSTIVE,
    ),
    pytest.param(
      optax.MultiSteps(optax.adam(0.01), 2),
      (),
      {"sampler": "uniform"},
      marks=EXHAUSTIVE,
    ),
    pytest.param(
      optax.contrib.momo(0.1),
      ("value",),
      {"sampler": "neuron"},
      marks=EXHAUSTIVE,
    ),
    (
      optax.MultiSteps(optax.contrib.momo(0.1), 2),
      ("value",),
      {"sampler": "bernoulli"},
    ),
    (gx.FusedAdamW(learning_rate=0.01), (), {"target": RULES}),
  ],
  ids=["adamw", "frozen", "MultiSteps", "value", "MultiSteps-value", "fused"],
)
def test_it_is_the_loop_over_the_pieces(tx, told, settings):
  """Bit for bit, over two redraws."""
  runs = []
  for step in (step_in_one, step_by_step):
    mixed = create(PARAMS, resample_every=2, **settings)
    runs.append(
      run_mixed(mixed, tx, jax.tree.map(lambda x: x[:9], BATCHES),
                functools.partial(step, told=told))
    )  # fmt: skip
  exactly(*runs)
  trained = runs[0][0]["blocks"][0]["kernel"]
  assert np.abs(trained[-1] - trained[0]).max() > 1e-3


@pytest.mark.slow
@EXHAUSTIVE  # as of packed gradients, in `test_mixed_params_gradients.py`
def test_multi_steps_are_one_step_of_an_episode():
  """`apply_gradients` sees by itself which micro-batch makes the step."""
  halves = jax.tree.map(
    lambda x: x.reshape(2 * STEPS, -1, x.shape[-1]), BATCHES
  )
  multi = optax.MultiSteps(INNER["adamw"], 2)
  for tx in (multi, multi.gradient_transformation()):
    trained, mixed, _ = run_mixed(create(PARAMS), tx, halves, step_in_one)
    assert int(mixed.count) == STEPS
    after_steps = jax.tree.map(lambda leaf: leaf[1::2], trained)
    assert_same_trajectory(after_steps, trajectory_of_gmixout()[0])


def run_from_init(step, tx):
  """Its state starts from weights, not from zeros as in `run_mixed`."""

  def body(carry, batch):
    mixed, state = step(tx, *carry, batch)
    return (mixed, state), mixed.params

  mixed = create(PARAMS)
  return run(body, (mixed, jit(tx.init)(mixed.trainable())), BATCHES)


@pytest.mark.slow
def test_held_weights_restart_as_in_gmixout():
  inner = optax.chain(
    optax.clip(1.0), optax.contrib.schedule_free_sgd(0.05)
  )  # its state is looked for inside others
  theirs, *end = run_transform(transform(inner))
  ours, mixed, _ = run_from_init(step_in_one, inner)
  assert_same_trajectory(ours, theirs)
  assert_same_end(mixed, *end)
  # The pieces leave the optimizer's state alone.
  without, _, _ = run_from_init(step_by_step, inner)
  kernel = lambda trained: trained["blocks"][0]["kernel"]
  assert np.abs(kernel(without) - kernel(ours)).max() > 1e-3


@pytest.mark.slow
def test_the_fused_adamw_is_adamw():
  run = functools.partial(run_mixed, create(PARAMS), step=step_in_one)
  expected, _, _ = run(optax.adamw(0.01))
  actual, _, _ = run(gx.FusedAdamW(learning_rate=0.01))
  assert_same_trajectory(actual, expected)


def count_draws(function, *args):
  """Rotations of words in a traced function, calls followed.

  Only threefry's rounds shift to the left.
  """

  def inner(value):
    if isinstance(value, jex.core.ClosedJaxpr):
      return [value.jaxpr]
    if isinstance(value, jex.core.Jaxpr):
      return [value]
    several = value if isinstance(value, tuple) else ()
    return [jaxpr for one in several for jaxpr in inner(one)]

  def count(jaxpr):
    return sum(
      (eqn.primitive.name == "shift_left")
      + sum(map(count, inner(tuple(eqn.params.values()))))
      for eqn in jaxpr.eqns
    )

  return count(jax.make_jaxpr(function)(*args).jaxpr)


@pytest.mark.parametrize(
  ("sampler", "residual"), every_value(SAMPLERS, ["reset", "keep"])
)
def test_masks_are_drawn_once_a_step(sampler, residual):
  mixed = create(PARAMS, sampler=sampler, residual=residual)
  tx = INNER["adamw"]
  state = jax.eval_shape(lambda: tx.init(mixed.trainable()))
  draws = {
    step: count_draws(functools.partial(step, tx), mixed, state, BATCH)
    for step in (step_in_one, step_by_step)
  }
  once = count_draws(lambda mixed: mixed.masks(), mixed)
  assert once > 0
  # With a kept residual the weights are mixed by the next step's mask.
  assert draws[step_in_one] == (once if residual == "reset" else 2 * once)
  assert draws[step_in_one] <= draws[step_by_step]


SMALL = {"kernel": jnp.linspace(0.1, 1.0, 80).reshape(4, 20)}
X = jnp.ones(4)


def small_step(mixed, x):
  """Every method once; `mixed` has been asked already by somebody else."""
  square = lambda params, x: jnp.sum(jnp.square(x @ params["kernel"]))
  trainable = mixed.trainable()
  value, grads = mixed.value_and_grad(square)(x)
  stepped, _ = mixed.apply_gradients(
    optax.sgd(0.1), grads, optax.sgd(0.1).init(trainable)
  )
  return value, stepped.params["kernel"], stepped.eval_params()["kernel"]


def under_scan(mixed, x):
  _, out = jax.lax.scan(
    lambda _, x: (None, small_step(mixed, x)), None, x[None]
  )
  return jax.tree.map(lambda leaf: leaf[0], out)


def under_vmap(mixed, x):
  out = jax.vmap(lambda x: small_step(mixed, x))(jnp.stack([x, 2 * x]))
  return jax.tree.map(lambda leaf: leaf[0], out)


def under_vmap_of_mixed(mixed, x):
  """A stack of them, as for many seeds at once."""
  stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), mixed)
  out = jax.vmap(small_step, (0, None))(stack, x)
  return jax.tree.map(lambda leaf: leaf[1], out)


def under_grad(mixed, x):
  def value(scale):
    value, *rest = small_step(mixed, scale * x)
    return value, (value, *rest)

  _, out = jax.grad(value, has_aux=True)(1.0)
  return out


def under_shard_map(mixed, x):
  mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
  spec = jax.P()
  return jax.shard_map(
    small_step, mesh=mesh, in_specs=(spec, spec), out_specs=spec
  )(mixed, x)


def closed_over_by_shard_map(mixed, x):
  mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
  return jax.shard_map(
    lambda x: small_step(mixed, x),
    mesh=mesh,
    in_specs=jax.P(),
    out_specs=jax.P(),
  )(x)


INSIDE = {
  "eager": small_step,
  "jit": lambda mixed, x: jax.jit(small_step)(mixed, x),
  "closed over by jit": lambda mixed, x: jax.jit(
    lambda x: small_step(mixed, x)
  )(x),
  "scan": under_scan,
  "vmap": under_vmap,
  "vmap of mixed": under_vmap_of_mixed,
  "grad": under_grad,
  "remat": lambda mixed, x: jax.checkpoint(small_step)(mixed, x),
  "closed over by remat": lambda mixed, x: jax.checkpoint(
    lambda x: small_step(mixed, x)
  )(x),
  "cond": lambda mixed, x: jax.lax.cond(
    x[0] > 0, lambda: small_step(mixed, x), lambda: small_step(mixed, -x)
  ),
  "shard_map": under_shard_map,
  "closed over by shard_map": closed_over_by_shard_map,
}


SOME = ("eager", "scan", "closed over by shard_map")


@functools.cache
def small_expected():
  return jax.device_get(jax.jit(small_step)(small(), X))


def small():
  return gx.MixedParams.create(SMALL, key=3, sparsity=0.8, resample_every=1)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("inside", "outside"),
  [
    *(
      pytest.param(inside, "jit", marks=() if inside in SOME else EXHAUSTIVE)
      for inside in INSIDE
    ),
    *((inside, "eager") for inside in ("eager", "jit", "closed over by jit")),
  ],
)
def test_no_tracer_leaks(inside, outside):
  """Whoever asks first, and however deep, what is kept stays valid."""

  def before_and_after(mixed, x):
    first = INSIDE[inside](mixed, x)
    again = small_step(mixed, x)  # with what was kept inside, if anything
    return first, again

  wrap = jax.jit if outside == "jit" else lambda function: function
  expected = small_expected()
  with jax.checking_leaks():
    mixed = small()
    results = wrap(before_and_after)(mixed, X)
    # Nor does the object itself, which the trace has only seen in parts.
    results = (*results, small_step(mixed, X))
  for result in results:
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
      result,
      expected,
    )


def test_gradients_that_do_not_fit_are_refused():
  mixed = create(PARAMS)
  tx = INNER["adamw"]
  state = jax.eval_shape(lambda: tx.init(mixed.trainable()))
  for optimizer in (tx, gx.FusedAdamW(learning_rate=0.1)):
    with pytest.raises(
      ValueError, match=r"^grads must hold .*'blocks/0/kernel'"
    ):
      jax.eval_shape(
        lambda state, by=optimizer: mixed.apply_gradients(by, PARAMS, state),
        state,
      )
