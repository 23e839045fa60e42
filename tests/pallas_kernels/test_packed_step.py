"""Tests `pallas_kernels/packed_step`.

The reference follows float64 NumPy, `optax.adamw` and `gmixout_jax`; kernels
follow the reference.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from gmixout_jax._core import samplers
from pallas_kernels import dispatch
from pallas_kernels import leaf as leaves
from pallas_kernels.packed_step import mosaic_gpu, shapes
from pallas_kernels.packed_step.api import init, packed_step
from pallas_kernels.packed_step.arithmetic import Scalars
from tests.combinations import tried
from tests.gmixout_jax import oracle
from tests.pallas_kernels.kernels import (
  DTYPES,
  KEPT,
  KEY,
  assert_close,
  cuda_module,
  gpu,
  normal,
)

pytestmark = pytest.mark.slow

SHAPE, PERIOD, STEPS = (12, 20), 3, 8
# The other shapes are between these.
LOWERED_OFTEN = (
  *("b16_fc1", "imagenet_head", "one_column", "one_entry", "odd_columns"),
)
RATE, DECAY, LAMBDA = 0.01, 0.2, 0.3


def leaf_key(episode, path="w"):
  return samplers.leaf_keys(KEY, jnp.int32(episode), [path])[0]


def run(trained, gradient, *, dtype=jnp.float32, **options):
  """Yields the training weights after each step."""
  trained = jnp.asarray(trained, dtype)
  memory = init(trained, kept=KEPT)
  step = jax.jit(
    lambda trained, gradient, memory, key, **rest: packed_step(
      trained,
      gradient,
      memory,
      key,
      kept=KEPT,
      learning_rate=RATE,
      weight_decay=DECAY,
      anchor_decay=LAMBDA,
      **rest,
      **options,
    )
  )
  for count in range(STEPS):
    trained, memory = step(
      trained,
      jnp.asarray(gradient(trained), dtype),
      memory,
      leaf_key(count // PERIOD),
      count=count + 1,
      starts=count % PERIOD == 0,
      ends=count % PERIOD == PERIOD - 1,
    )
    yield trained


def problem(rng):
  inputs, outputs = rng.normal(size=(30, 12)), rng.normal(size=(30, 20))

  def gradient(w):
    w = np.asarray(w, np.float64)
    return inputs.T @ np.tanh(inputs @ w - outputs) / 30

  return rng.normal(size=SHAPE), gradient


def test_reference_against_numpy(rng):
  weights, gradient = problem(rng)
  layout = samplers.Stratified(SHAPE, KEPT)
  like = jnp.zeros(SHAPE)
  expected = oracle.gmixout(
    weights,
    gradient,
    lambda e: np.asarray(layout.mask(layout.draw(leaf_key(e), like), like)),
    inner=oracle.AdamW(24, RATE, DECAY),
    slots=24,
    s=layout.kept_fraction,
    decay=lambda episode: LAMBDA,
    period=lambda episode: PERIOD,
    steps=STEPS,
  )
  for trained, (theirs, _) in zip(
    run(weights, gradient), expected, strict=True
  ):
    np.testing.assert_allclose(trained, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reference_follows_gmixout(rng, dtype):
  weights, gradient = problem(rng)
  tx = gx.gmixout(
    optax.adamw(RATE, weight_decay=DECAY),
    sparsity=1 - KEPT,
    anchor_decay=LAMBDA,
    resample_every=PERIOD,
    key=KEY,
  )
  params: Any = {"w": jnp.asarray(weights, dtype)}
  state, update = tx.init(params), jax.jit(tx.update)
  for trained in run(weights, gradient, dtype=dtype):
    gradients = {"w": jnp.asarray(gradient(params["w"]), dtype)}
    updates, state = update(gradients, state, params)
    params = optax.apply_updates(params, updates)
    assert_close(trained, params["w"], dtype)
    # Each goes on from the same weights, or bfloat16 would drift apart.
    params = {"w": trained}


def test_keeping_all_is_adamw(rng):
  weights, gradient = (normal(rng, SHAPE) for _ in range(2))
  tx = optax.adamw(RATE, weight_decay=0.0)
  params: Any = weights
  trained, state, memory = weights, tx.init(weights), init(weights, kept=1.0)
  step = jax.jit(
    lambda trained, memory, count: packed_step(
      trained,
      gradient,
      memory,
      KEY,
      count=count + 1,
      learning_rate=RATE,
      kept=1.0,
      weight_decay=0.0,
      starts=count == 0,
    )
  )
  for count in range(STEPS):
    trained, memory = step(trained, memory, count)
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(trained, params, rtol=1e-6, atol=1e-6)


def middle_of_an_episode(rng, shape, dtype):
  trained = normal(rng, shape, dtype)
  memory = jax.tree.map(
    lambda part: normal(rng, part.shape) ** 2, init(trained, kept=KEPT)
  )
  return trained, normal(rng, shape, dtype), memory


def assert_steps_agree(rng, shape, dtype, name, **options):
  trained, gradient, memory = middle_of_an_episode(rng, shape, dtype)

  def step(name):
    return jax.jit(
      lambda trained, gradient, memory: packed_step(
        trained,
        gradient,
        memory,
        KEY,
        count=3,
        learning_rate=RATE,
        kept=KEPT,
        implementation=name,
        **options,
      )
    )(trained, gradient, memory)

  stepped, memory_after = step(name)
  expected, expected_memory = step("xla")
  assert_close(stepped, expected, dtype)
  for part, other in zip(
    jax.tree.leaves(memory_after), jax.tree.leaves(expected_memory), strict=True
  ):
    assert_close(part, other, jnp.float32)
  np.testing.assert_array_equal(stepped != trained, expected != trained)


@pytest.mark.parametrize(
  ("name", "dtype", "ends"),
  tried(
    [
      ("odd_columns", jnp.float32, True),
      ("odd_columns", jnp.bfloat16, False),
      ("blocks", jnp.float32, False),
      ("blocks", jnp.bfloat16, True),
    ],
    lambda name, _, ends: ends == (name == "odd_columns"),
  ),
)
def test_mosaic_gpu_by_flags(rng, name, dtype, ends):
  options = {"ends": ends, "starts": not ends}
  with dispatch.interpreted():
    assert_steps_agree(rng, shapes.SMALL[name], dtype, "mosaic_gpu", **options)


@pytest.mark.parametrize(
  "name",
  tried(
    [n for n in shapes.SMALL if n not in ("odd_columns", "blocks")],
    # The masks of all these shapes are tried in `test_leaf.py`.
    lambda name: name in ("one_column", "stack", "thousand_columns"),
  ),
)
def test_mosaic_gpu_by_shape(rng, name):
  with dispatch.interpreted():
    assert_steps_agree(rng, shapes.SMALL[name], jnp.float32, "mosaic_gpu")


@pytest.mark.parametrize("name", ["xla", "mosaic_gpu"])
def test_gradients_may_be_packed(rng, name):
  trained, gradient, memory = middle_of_an_episode(rng, (3, 127), jnp.float32)
  leaf = leaves.StratifiedLeaf(trained.shape, KEPT)
  packed = leaves.take(gradient, leaf.columns(leaves.seed(KEY)))
  packed = packed / leaf.kept_fraction
  options = {"count": 3, "learning_rate": RATE, "kept": KEPT}
  expected, _ = packed_step(trained, gradient, memory, KEY, **options)
  with dispatch.interpreted():
    stepped, _ = packed_step(
      trained,
      packed,
      memory,
      KEY,
      packed_gradient=True,
      implementation=name,
      **options,
    )
  assert_close(stepped, expected, jnp.float32)


@pytest.mark.parametrize(
  ("name", "dtype"),
  tried(
    [
      *itertools.product(shapes.NAMED, [jnp.float32]),
      *itertools.product(shapes.SMALL, [jnp.bfloat16]),
    ],
    lambda name, _: name in LOWERED_OFTEN,
  ),
)
def test_lowers_for_cuda_in_place(name, dtype):
  shape = (shapes.NAMED | shapes.SMALL)[name]
  leaf = leaves.StratifiedLeaf(shape, KEPT)
  trained = jax.ShapeDtypeStruct(shape, dtype)
  memory = jax.eval_shape(lambda: init(trained, kept=KEPT))
  scalar = jax.ShapeDtypeStruct((), jnp.float32)
  text = cuda_module(
    lambda trained, memory, *rest: mosaic_gpu.packed_step(
      leaf,
      trained,
      rest[0],
      memory,
      Scalars(*rest[2:]),
      rest[1],
      divisor=leaf.kept_fraction,
    ),
    trained,
    memory,
    trained,
    jax.ShapeDtypeStruct((3,), jnp.uint32),
    *[scalar] * len(Scalars._fields),
    donate=(0, 1),
  )
  assert text.count("@mosaic_gpu_v2") == 1
  arrays = 1 + len(jax.tree.leaves(memory))
  assert text.count("output_operand_alias<") == arrays
  assert text.count("tf.aliasing_output") == arrays


def test_scan_with_traced_rates_and_flags(rng):
  trained, gradient, memory = middle_of_an_episode(rng, (3, 127), jnp.float32)
  rates = jnp.linspace(0.1, 0.3, 3)

  def steps(name):
    def step(carry, now):
      rate, count = now
      carry = packed_step(
        carry[0],
        gradient,
        carry[1],
        jax.random.fold_in(KEY, count // 2),
        count=count + 1,
        learning_rate=rate,
        kept=KEPT,
        starts=count % 2 == 0,
        ends=count % 2 == 1,
        implementation=name,
      )
      return carry, None

    return jax.jit(
      lambda carry: jax.lax.scan(step, carry, (rates, jnp.arange(3)))[0]
    )((trained, memory))

  with dispatch.interpreted():
    ours = steps("mosaic_gpu")
  for one, other in zip(
    jax.tree.leaves(ours), jax.tree.leaves(steps("xla")), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_vmap_over_leaves_and_keys(rng):
  trained, gradient, _ = middle_of_an_episode(rng, (2, 3, 127), jnp.float32)
  memory = init(trained, kept=KEPT)
  keys = jax.random.split(KEY, 2)

  def step(name, trained, gradient, memory, key):
    return packed_step(
      trained,
      gradient,
      memory,
      key,
      count=1,
      learning_rate=RATE,
      kept=KEPT,
      starts=True,
      implementation=name,
    )

  with dispatch.interpreted():
    ours = jax.vmap(lambda *leaf: step("mosaic_gpu", *leaf))(
      trained, gradient, memory, keys
    )
  for i in range(2):
    one = step(
      "xla",
      trained[i],
      gradient[i],
      jax.tree.map(lambda part, i=i: part[i], memory),
      keys[i],
    )
    for got, wanted in zip(
      jax.tree.leaves(ours), jax.tree.leaves(one), strict=True
    ):
      assert_close(got[i], wanted, jnp.float32)


def test_what_does_not_fit_is_named():
  trained = jnp.zeros((4, 40))
  memory = init(trained, kept=KEPT)
  step = lambda trained, gradient, memory, **options: packed_step(
    trained, gradient, memory, KEY, count=1, learning_rate=0.1, kept=KEPT,
    **options,
  )  # fmt: skip
  for call, message in [
    (
      lambda: step(trained, trained[:2], memory),
      r"gradient.*\(4, 40\).*\(2, 40\)",
    ),
    (lambda: step(trained, trained, memory, packed_gradient=True), r"\(4, 4\)"),
    (lambda: step(trained, trained, memory._replace(mu=trained)), "memory.mu"),
    (
      lambda: step(trained.astype(jnp.bfloat16), trained, memory),
      "memory.learned must be an array.*bfloat16",
    ),
    (
      lambda: step(
        trained, trained, memory._replace(nu=memory.nu.astype(jnp.bfloat16))
      ),
      "memory.nu must be float32",
    ),
  ]:
    with pytest.raises(ValueError, match=message):
      call()


@gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["mosaic_gpu", "triton"])
@pytest.mark.parametrize("shape", shapes.NAMED.values())
def test_on_the_device(rng, name, shape, dtype):
  reason = dispatch.obstacle(name)
  if reason is not None:
    pytest.skip(reason)
  for ends in (False, True):
    assert_steps_agree(rng, shape, dtype, name, ends=ends)
