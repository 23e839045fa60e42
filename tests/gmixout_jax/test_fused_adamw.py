"""Tests `fused_adamw.py` and `_core/kernel_layout.py`: GPU kernels in steps.

The reference is the same step by XLA, which other tests check against NumPy,
with `optax.adamw`. The GPU interpreter stands in for a GPU.
"""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gmixout_jax as gx
from pallas_kernels import dispatch
from tests.combinations import EXHAUSTIVE, tried
from tests.gmixout_jax.compiling import jit
from tests.pallas_kernels.kernels import TOLERANCE, cuda_module, gpu

pytestmark = pytest.mark.slow

SETTINGS = {
  "sparsity": 0.7,
  "anchor_decay": 0.4,
  "resample_every": 2,
  "key": 5,
  "target": "kernel",
}
STEPS = 3  # an episode and the first step of another
DTYPES = [jnp.float32, jnp.bfloat16]
# How many units of a kernel's tolerance a run may be away.
STEPS_APART = {jnp.float32: 20, jnp.bfloat16: 1}
ADAMW = {
  "learning_rate": optax.linear_schedule(0.05, 0.01, STEPS),
  "b1": 0.8,
  "b2": 0.99,
  "eps": 1e-6,
  "weight_decay": 0.1,
}


def make_params(dtype=jnp.float32):
  rng = np.random.default_rng(0)
  kernel = jnp.asarray(rng.normal(size=(7, 20)), dtype)
  return {"kernel": kernel, "bias": jnp.zeros(20), "scale": jnp.ones(1)}


def loss(params, x):
  y = x @ params["kernel"].astype(jnp.float32) * params["scale"][None]
  return jnp.mean((jnp.tanh(y + params["bias"][None]) - 0.5) ** 2)


def batches():
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.normal(size=(STEPS, 4, 7)), jnp.float32)


def close(actual, expected, dtype):
  jax.tree.map(
    functools.partial(
      np.testing.assert_allclose,
      rtol=STEPS_APART[dtype] * TOLERANCE[dtype],
      atol=STEPS_APART[dtype] * TOLERANCE[dtype],
    ),
    *(
      jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
      for tree in (actual, expected)
    ),
  )


def transformed(params, implementation):
  """Training weights after STEPS of `gmixout`, masks, evaluation weights."""
  tx = gx.gmixout(
    optax.adamw(**ADAMW), **SETTINGS, implementation=implementation
  )

  @jit
  def step(params, state, x):
    grads = jax.grad(loss)(params, x)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  state = tx.init(params)
  for x in batches():
    params, state = step(params, state, x)
  masks = jit(gx.gmixout_masks)(state, params)
  return params, masks, jit(gx.gmixout_eval_params)(state, params)


def wrapped(params, implementation, optimizer, **settings):
  """The same by `MixedParams`, and the state of the optimizer."""
  mixed = gx.MixedParams.create(
    params, **SETTINGS | settings, implementation=implementation
  )

  @jit
  def step(mixed, state, x):
    trainable = mixed.trainable()
    grads = jax.grad(lambda t: loss(mixed.inject(t), x))(trainable)
    if isinstance(optimizer, gx.FusedAdamW):
      return optimizer.step(mixed, grads, state)
    updates, state = optimizer.update(grads, state, trainable)
    return mixed.apply_updates(updates), state

  state = optimizer.init(mixed.trainable())
  for x in batches():
    mixed, state = step(mixed, state, x)
  return mixed, state


@EXHAUSTIVE  # the wrapper, below, takes the same kernels for such leaves
def test_kernels_in_gmixout():
  params = make_params()
  expected = transformed(params, "xla")
  with dispatch.interpreted():
    actual = transformed(params, "mosaic_gpu")
  close((actual[0], actual[2]), (expected[0], expected[2]), jnp.float32)
  np.testing.assert_array_equal(
    actual[1]["kernel"], expected[1]["kernel"], strict=True
  )


@pytest.mark.parametrize(
  ("dtype", "fused"),
  tried([(jnp.float32, False), (jnp.bfloat16, True)], lambda _, fused: fused),
)
def test_kernels_in_the_wrapper(dtype, fused):
  params = make_params(dtype)
  expected, _ = wrapped(params, "xla", optax.adamw(**ADAMW))
  optimizer = (gx.FusedAdamW if fused else optax.adamw)(**ADAMW)
  with dispatch.interpreted():
    actual, _ = wrapped(params, "mosaic_gpu", optimizer)
  close(actual.params, expected.params, dtype)
  close(actual.anchor["kernel"], expected.anchor["kernel"], dtype)


@pytest.mark.parametrize(
  ("dtype", "rate"), [(jnp.float32, "schedule"), (jnp.bfloat16, "number")]
)
def test_fused_adamw_is_adamw(dtype, rate):
  options = ADAMW | ({"learning_rate": 0.03} if rate == "number" else {})
  settings = {
    "target": (("kernel", "mixed"), ("bias", "dense"), ("scale", "frozen")),
    "rescale": rate == "number",
  }
  params = make_params(dtype)
  expected = wrapped(params, "xla", optax.adamw(**options), **settings)
  actual = wrapped(params, "xla", gx.FusedAdamW(**options), **settings)
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  close(actual, expected, dtype)
  assert actual[0].params["scale"] == params["scale"]


def test_a_run_changes_from_adamw_to_the_fused_one_and_back():
  params = make_params()
  adamw, fused = optax.adamw(**ADAMW), gx.FusedAdamW(**ADAMW)
  expected, _ = wrapped(params, "xla", adamw)

  @functools.partial(jit, static_argnums=0)
  def step(number, mixed, state, x):
    trainable = mixed.trainable()
    grads = jax.grad(lambda t: loss(mixed.inject(t), x))(trainable)
    if number % 2:
      return fused.step(mixed, grads, state)
    updates, state = adamw.update(grads, state, trainable)
    return mixed.apply_updates(updates), state

  mixed = gx.MixedParams.create(params, **SETTINGS)
  state = fused.init(mixed.trainable())
  for number, x in enumerate(batches()):
    mixed, state = step(number, mixed, state, x)
  close(mixed.params, expected.params, jnp.float32)


def test_fused_adamw_in_an_nnx_optimizer():
  def train(tx):
    model = nnx.Linear(7, 20, rngs=nnx.Rngs(0))
    optimizer = gx.nnx.MixedOptimizer(model, tx, **SETTINGS)

    @nnx.jit
    def step(model, optimizer, x):
      mean = lambda model: jnp.mean((model(x) - 0.5) ** 2)
      _, grads = optimizer.value_and_grad(mean)(model)
      optimizer.update(model, grads)

    for x in batches():
      step(model, optimizer, x)
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))

  actual, expected = map(train, (gx.FusedAdamW(**ADAMW), optax.adamw(**ADAMW)))
  close(actual, expected, jnp.float32)


@pytest.mark.parametrize("fused", [False, True])
def test_a_whole_step_lowers_for_cuda(monkeypatch, fused):
  monkeypatch.setattr(dispatch, "obstacle", lambda name: None)
  mixed = gx.MixedParams.create(
    make_params(), **SETTINGS, implementation="mosaic_gpu"
  )
  optimizer = (gx.FusedAdamW if fused else optax.adamw)(**ADAMW)

  def step(mixed, state, x):
    _, grads = mixed.value_and_grad(loss)(x)
    return mixed.apply_gradients(optimizer, grads, state)

  state = jax.eval_shape(lambda: optimizer.init(mixed.trainable()))
  module = cuda_module(step, mixed, state, batches()[0], donate=(0, 1))
  kernels = module.count("stablehlo.custom_call @mosaic_gpu")
  # pack of the gradient and one pass; or a mix, and packs of the gradient and
  # of the weights.
  assert kernels == (2 if fused else 3)


def test_none_leaves_to_xla_what_kernels_cannot(monkeypatch):
  monkeypatch.setattr(dispatch, "obstacle", lambda name: None)
  monkeypatch.setattr(dispatch, "PREFERENCE", ("mosaic_gpu", "xla"))
  kinds = {}
  for dtype in (jnp.float32, jnp.float16):
    mixed = gx.MixedParams.create(make_params(dtype), **SETTINGS)
    mix = mixed.settings.mixed_leaf("kernel", mixed.params["kernel"])
    kinds[dtype] = type(mix.layout).__name__
  assert kinds == {jnp.float32: "KernelStratified", jnp.float16: "Stratified"}


def test_what_cannot_run_says_why(monkeypatch):
  with pytest.raises(NotImplementedError, match=r"mosaic_gpu.*Hopper"):
    gx.gmixout(key=0, implementation="mosaic_gpu")
  with pytest.raises(ValueError, match=r"implementation must be.*'cuda'"):
    gx.gmixout(key=0, implementation="cuda")
  monkeypatch.setattr(dispatch, "obstacle", lambda name: None)
  with pytest.raises(ValueError, match=r"'stratified' only, got.*'neuron'"):
    gx.gmixout(key=0, implementation="mosaic_gpu", sampler="neuron")
  with pytest.raises(ValueError, match=r"leaf 'kernel'.*float16"):
    gx.MixedParams.create(
      make_params(jnp.float16), **SETTINGS, implementation="mosaic_gpu"
    )


def test_kernels_refuse_an_explicit_mesh():
  mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Explicit,))
  with dispatch.interpreted(), jax.set_mesh(mesh):
    sharding = jax.P("data", None)
    params = {"kernel": jax.device_put(jnp.ones((4, 20)), sharding)}
    mixed = gx.MixedParams.create(
      params, **SETTINGS, implementation="mosaic_gpu"
    )
    with pytest.raises(ValueError, match=r"inside jax\.shard_map"):
      mixed.trainable()


@pytest.mark.parametrize(
  "settings", [{"sampler": "neuron"}, {"residual": "keep"}]
)
def test_fused_adamw_refuses_other_mixes(settings):
  mixed = gx.MixedParams.create(make_params(), **SETTINGS, **settings)
  adamw, trainable = gx.FusedAdamW(learning_rate=0.1), mixed.trainable()
  with pytest.raises(ValueError, match="leaf 'kernel'"):
    adamw.step(mixed, trainable, adamw.init(trainable))


def test_fused_adamw_takes_float16_by_xla():
  """Which no GPU kernel does."""
  mixed = gx.MixedParams.create(make_params(jnp.float16), **SETTINGS)
  adamw, trainable = gx.FusedAdamW(learning_rate=0.1), mixed.trainable()
  grads = jax.tree.map(jnp.ones_like, trainable)
  stepped, _ = jit(adamw.step)(mixed, grads, adamw.init(trainable))
  moved = np.asarray(stepped.params["kernel"] != mixed.params["kernel"])
  np.testing.assert_array_equal(moved, mixed.masks()["kernel"])


def test_fused_adamw_does_not_copy_its_schedule():
  """Which may hold what cannot be copied."""

  class Held:
    lock = None

    def __call__(self, count):
      return 0.1

  schedule = Held()
  schedule.lock = threading.Lock()
  adamw = gx.FusedAdamW(learning_rate=schedule)
  adamw.init({"kernel": jnp.ones(3)})


@gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["mosaic_gpu", "triton"])
def test_kernels_on_the_device(name, dtype):
  reason = dispatch.obstacle(name)
  if reason is not None:
    pytest.skip(reason)
  params = make_params(dtype)
  expected, _ = wrapped(params, "xla", optax.adamw(**ADAMW))
  for optimizer in (optax.adamw(**ADAMW), gx.FusedAdamW(**ADAMW)):
    actual, _ = wrapped(params, name, optimizer)
    close(actual.params, expected.params, dtype)


def test_fused_adamw_needs_the_state_of_its_adamw():
  params = {"kernel": jnp.ones((8, 40)), "bias": jnp.ones(40)}
  mixed = gx.MixedParams.create(params, key=0)
  grads = mixed.trainable()
  constant, schedule = (
    gx.FusedAdamW(learning_rate=0.1),
    gx.FusedAdamW(learning_rate=lambda step: 0.1),
  )
  for fused, state, rate in (
    (constant, optax.sgd(0.1).init(grads), "a constant"),
    (constant, constant.init(params | {"more": jnp.ones(2)}), "a constant"),
    (schedule, constant.init(grads), "a schedule"),
  ):
    with pytest.raises(ValueError, match=f"that of optax.adamw, with {rate}"):
      mixed.apply_gradients(fused, grads, state)
  with pytest.raises(ValueError, match="got value for FusedAdamW, which takes"):
    mixed.apply_gradients(constant, grads, constant.init(grads), value=1.0)
