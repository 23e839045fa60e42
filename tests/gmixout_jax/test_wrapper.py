"""Tests `gmixout_jax/wrapper.py`: what `gmixout` does, from packed gradients.

The references are `gmixout`, which other tests check against NumPy; that NumPy
oracle; and plain `jax.grad` with respect to the dense weights.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from orbax.checkpoint import v1 as ocp

import gmixout_jax as gx
from gmixout_jax import masks
from tests.gmixout_jax import oracle

SAMPLERS = ("stratified", "uniform", "bernoulli", "neuron")
STEPS = 10  # three episodes of three, and one step
INNER = {"adamw": optax.adamw(0.01), "sgd": optax.sgd(0.02, momentum=0.9)}

SETTINGS: dict[str, Any] = {
  "sparsity": 0.7,
  "anchor_decay": 0.4,
  "resample_every": 3,
  "key": 5,
  "target": "blocks/0",  # one matrix of three: compiling is what takes time
}
RULES = (
  (r"blocks/\d+/kernel", "mixed"),
  (r"head/", "dense"),
  (r"", "frozen"),
)

create = functools.partial(gx.MixedParams.create, **SETTINGS)
transform = functools.partial(gx.gmixout, **SETTINGS)
# Most of the time here is spent on compiling; this halves it.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)


def make_params():
  rng = np.random.default_rng(0)

  def layer(rows, cols):
    kernel = rng.normal(size=(rows, cols)) / math.sqrt(rows)
    bias = 0.1 * rng.normal(size=cols)
    return {
      "kernel": jnp.asarray(kernel, jnp.float32),
      "bias": jnp.asarray(bias, jnp.float32),
    }

  return {"blocks": [layer(12, 20), layer(20, 16)], "head": layer(16, 3)}


def make_batches():
  """Inputs and targets of each step, [steps, batch, ...]."""
  rng = np.random.default_rng(1)
  inputs = rng.normal(size=(STEPS, 8, 12))
  targets = np.tanh(inputs[..., :3]) + rng.normal(size=3)
  return jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32)


PARAMS, BATCHES = make_params(), make_batches()
BATCH = jax.tree.map(lambda leaf: leaf[0], BATCHES)


def dense(x, layer):
  return x @ layer["kernel"] + layer["bias"][None]


def block(x, layer):
  return jnp.tanh(dense(x, layer))


def loss(params, batch, block=block):
  x, y = batch
  for layer in params["blocks"]:
    x = block(x, layer)
  return jnp.mean((dense(x, params["head"]) - y) ** 2)


def mixed_step(tx, mixed, state, batch):
  """The step that the docstring of `MixedParams` shows."""
  trainable = mixed.trainable()
  grads = jax.grad(lambda t: loss(mixed.inject(t), batch))(trainable)
  updates, state = tx.update(grads, state, trainable)
  return mixed.apply_updates(updates), state


def run(step, carry, batches):
  """What a step says after each batch, stacked; and how it all ends."""
  step, said = jit(step), []
  for batch in zip(*batches, strict=True):
    carry, one = step(carry, batch)
    said.append(one)
  return jax.tree.map(lambda *leaves: np.stack(leaves), *said), *carry


def run_mixed(mixed, tx, batches=BATCHES, step=mixed_step):
  def body(carry, batch):
    mixed, state = step(tx, *carry, batch)
    return (mixed, state), mixed.params

  # No values: the optimizers here start from zeros, and drawing takes time.
  shapes = jax.eval_shape(lambda mixed: tx.init(mixed.trainable()), mixed)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  return run(body, (mixed, zeros), batches)


def run_transform(tx, params=PARAMS):
  def body(carry, batch):
    params, state = carry
    updates, state = tx.update(jax.grad(loss)(params, batch), state, params)
    params = optax.apply_updates(params, updates)
    return (params, state), params

  return run(body, (params, tx.init(params)), BATCHES)


@functools.cache
def trajectory_of_mixed(inner="adamw", sampler="stratified", residual="reset"):
  mixed = create(PARAMS, sampler=sampler, residual=residual)
  return run_mixed(mixed, INNER[inner])


@functools.cache
def trajectory_of_gmixout(
  inner="adamw", sampler="stratified", residual="reset"
):
  tx = transform(INNER[inner], sampler=sampler, residual=residual)
  return run_transform(tx)


def assert_close(one, other):
  """To 1e-5 of the scale of each leaf."""

  def check(one, other):
    scale = np.abs(other).max()
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * scale)

  jax.tree.map(check, one, other)


def assert_same_trajectory(ours, theirs):
  """Of live weights; and it leads somewhere."""
  assert_close(ours, theirs)
  moves = np.diff(ours["blocks"][0]["kernel"], axis=0)
  assert np.abs(moves).max(axis=(1, 2)).min() > 1e-3


@jit
def shown_by_mixed(mixed):
  return mixed.eval_params(), mixed.masks()


@jit
def shown_by_accessors(state, params):
  return gx.gmixout_eval_params(state, params), gx.gmixout_masks(state, params)


def assert_same_end(mixed, params, state):
  """Weights to deploy and masks."""
  deployed, mask = shown_by_mixed(mixed)
  expected, expected_mask = shown_by_accessors(state, params)
  assert_close(deployed, expected)
  jax.tree.map(np.testing.assert_array_equal, mask, expected_mask)


def types(tree):
  return jax.tree.map(jax.typeof, tree)


# The same weights as with gmixout.


@pytest.mark.parametrize(
  ("inner", "sampler", "residual"),
  [
    *(("adamw", sampler, "reset") for sampler in SAMPLERS),
    *(("sgd", sampler, "keep") for sampler in SAMPLERS),
  ],
)
def test_the_trajectory_is_that_of_gmixout(inner, sampler, residual):
  theirs, _, state = trajectory_of_gmixout(inner, sampler, residual)
  ours, mixed, _ = trajectory_of_mixed(inner, sampler, residual)
  assert_same_trajectory(ours, theirs)
  assert_close(mixed.anchor, state.anchor)
  assert int(mixed.count) == STEPS


@pytest.mark.parametrize(
  ("inner", "sampler", "residual"),
  [("adamw", "stratified", "reset"), ("sgd", "neuron", "keep")],
)
def test_its_accessors_show_what_those_of_gmixout_show(
  inner, sampler, residual
):
  _, params, state = trajectory_of_gmixout(inner, sampler, residual)
  _, mixed, _ = trajectory_of_mixed(inner, sampler, residual)
  assert_same_end(mixed, params, state)
  deployed = shown_by_mixed(mixed)[0]["blocks"][0]["kernel"]
  live = mixed.params["blocks"][0]["kernel"]
  assert np.abs(deployed - live).max() > 1e-3  # in mid-episode


@pytest.mark.parametrize(
  "setting",
  [
    {
      "resample_every": lambda episode: 1.0 + episode,
      "anchor_decay": lambda episode: 0.5 / (1.0 + episode),
    },
    {
      "resample_every": None,
      "rescale": False,
      "key": jax.random.key(2),
    },
  ],
  ids=["schedules", "fixed"],
)
def test_its_arguments_mean_what_they_mean_for_gmixout(setting):
  theirs, *end = run_transform(transform(INNER["adamw"], **setting))
  ours, mixed, _ = run_mixed(create(PARAMS, **setting), INNER["adamw"])
  assert_same_trajectory(ours, theirs)
  assert_same_end(mixed, *end)


def test_rules_are_a_partition():
  adamw = INNER["adamw"]
  tx = optax.partition(
    {
      "mixed": transform(adamw, target=None),
      "dense": adamw,
      "frozen": optax.set_to_zero(),
    },
    functools.partial(gx.gmixout_labels, rules=RULES),
  )
  theirs, params, their_state = run_transform(tx)
  ours, mixed, state = run_mixed(create(PARAMS, target=RULES), adamw)
  assert_same_trajectory(ours, theirs)
  deployed, mask = shown_by_mixed(mixed)
  expected, expected_mask = shown_by_accessors(their_state, params)
  assert_close(deployed, expected)
  # The partition hides the head from gmixout, which then says that it does not
  # train it.
  expected_mask["head"] = jax.tree.map(jnp.ones_like, mask["head"])
  jax.tree.map(np.testing.assert_array_equal, mask, expected_mask)
  for before, after in zip(
    PARAMS["blocks"], mixed.params["blocks"], strict=True
  ):
    np.testing.assert_array_equal(before["bias"], after["bias"])
  for leaf in ours["head"].values():
    assert np.abs(np.diff(leaf, axis=0)).max() > 1e-3
  # Adam's count, and two moments of what trains, packed where it is mixed.
  trained = [(12, 6), (20, 5), (16, 3), (3,)]
  shapes = sorted(leaf.shape for leaf in jax.tree.leaves(state))
  assert shapes == sorted([(), *trained, *trained])


# Gradients.


def kept_fraction(sampler, rows, cols):
  """The s of a matrix at sparsity 0.7: 0.3 only for Bernoulli masks."""
  return {
    "stratified": round(0.3 * cols) / cols,
    "uniform": int(0.3 * rows * cols) / (rows * cols),
    "bernoulli": 0.3,
    "neuron": round(0.3 * rows) / rows,
  }[sampler]


def packed_gradient(sampler, gradient, mask):
  """(∂L/∂W)[idx] / s by a boolean mask, for the four ways of packing."""
  rows, cols = gradient.shape
  active = gradient[mask] / kept_fraction(sampler, rows, cols)
  if sampler == "bernoulli":  # room for eight standard deviations more
    room = math.ceil(0.3 * mask.size + 8 * math.sqrt(0.21 * mask.size))
    return np.pad(active, (0, room - active.size))
  shape = {"stratified": (rows, -1), "neuron": (-1, cols)}
  return active.reshape(shape.get(sampler, (-1,)))


@pytest.mark.parametrize(
  ("sampler", "residual"),
  [*((s, "reset") for s in SAMPLERS), ("stratified", "keep")],
)
def test_gradients_are_the_active_entries_of_the_dense_one(sampler, residual):
  with jax.enable_x64(True):
    double = functools.partial(jnp.asarray, dtype=jnp.float64)
    params, batch = jax.tree.map(double, (PARAMS, BATCH))

    @jit
    def gradients(params, batch):
      # A matrix whose s is not 0.3, in the second episode.
      mixed = create(
        params, sampler=sampler, residual=residual, target="blocks/1"
      )
      mixed = dataclasses.replace(mixed, count=jnp.int32(4))
      of_mixed = lambda t: loss(mixed.inject(t), batch)
      packed = jax.grad(of_mixed)(mixed.trainable())
      return packed, jax.grad(loss)(params, batch), mixed.masks()

    packed, expected, mask = jax.device_get(gradients(params, batch))

  kernel = expected["blocks"][1]["kernel"]
  active = mask["blocks"][1]["kernel"]
  assert 0.2 < active.mean() < 0.4
  if residual == "keep":
    kernel = np.where(active, kernel / kept_fraction(sampler, 20, 16), 0)
  else:
    kernel = packed_gradient(sampler, kernel, active)
  expected["blocks"][1]["kernel"] = kernel
  exactly = functools.partial(np.testing.assert_allclose, rtol=1e-10)
  jax.tree.map(exactly, packed, expected)


def test_gradients_through_rematerialized_blocks():
  """`jax.checkpoint` may see the weights before or after their taps."""
  mixed = create(PARAMS)
  remat = functools.partial(loss, block=jax.checkpoint(block))

  def gradients(loss, wrap=lambda function: function):
    of_mixed = wrap(lambda t: loss(mixed.inject(t), BATCH))
    traced = jit(lambda: jax.grad(of_mixed)(mixed.trainable())).trace()
    return traced.lower().compile()(), "remat" in str(traced.jaxpr)

  expected, plain_is_remat = gradients(loss)
  blocks, blocks_are_remat = gradients(remat)
  whole, whole_is_remat = gradients(loss, jax.checkpoint)
  assert (plain_is_remat, blocks_are_remat, whole_is_remat) == (0, 1, 1)
  jax.tree.map(close, blocks, expected)
  jax.tree.map(close, whole, expected)


def halves(batches):
  """Each batch in two: [steps, 2, batch / 2, ...]."""
  cut = lambda leaf: leaf.reshape(len(leaf), 2, -1, leaf.shape[-1])
  return jax.tree.map(cut, batches)


def test_added_gradients_are_those_of_the_whole_batch():

  def step(tx, mixed, state, micro_batches):
    trainable = mixed.trainable()

    def add(total, batch):
      of_mixed = lambda t: loss(mixed.inject(t), batch)
      return jax.tree.map(jnp.add, total, jax.grad(of_mixed)(trainable)), None

    zeros = jax.tree.map(jnp.zeros_like, trainable)
    total, _ = jax.lax.scan(add, zeros, micro_batches)
    grads = jax.tree.map(lambda leaf: leaf / 2, total)
    updates, state = tx.update(grads, state, trainable)
    return mixed.apply_updates(updates), state

  ours, mixed, _ = run_mixed(
    create(PARAMS), INNER["adamw"], halves(BATCHES), step
  )
  assert_same_trajectory(ours, trajectory_of_gmixout()[0])
  assert int(mixed.count) == STEPS


@pytest.mark.parametrize("scheduled", [False, True])
def test_multi_steps_are_one_step_of_an_episode(scheduled):

  def step(multi, mixed, state, batch):
    trainable = mixed.trainable()
    grads = jax.grad(lambda t: loss(mixed.inject(t), batch))(trainable)
    updates, state = multi.update(grads, state, trainable)
    stepped = multi.has_updated(state)
    return mixed.apply_updates(updates, stepped=stepped), state

  # A schedule of what the constant period is: the same trajectory.
  period = {"resample_every": lambda episode: 3} if scheduled else {}
  flat = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])
  micro_batches = jax.tree.map(flat, halves(BATCHES))
  mixed, multi = create(PARAMS, **period), optax.MultiSteps(INNER["adamw"], 2)
  live, mixed, _ = run_mixed(mixed, multi, micro_batches, step)
  assert int(mixed.count) == STEPS
  after_steps = jax.tree.map(lambda leaf: leaf[1::2], live)
  assert_same_trajectory(after_steps, trajectory_of_gmixout()[0])
  # Between optimizer steps nothing moves, nor is an episode ended.
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.tree.map(lambda leaf: leaf[2::2], live),
    jax.tree.map(lambda leaf: leaf[1:-1:2], live),
  )


# Narrow weights.


def drawn_mask(shape, s):
  """Function episode -> boolean mask of the leaf "w"."""
  layout = masks.leaf_layout("stratified", "w", shape, s)
  like = jnp.zeros(shape)

  @functools.cache
  def mask(episode):
    key = masks.leaf_keys(jax.random.key(5), episode, ["w"])[0]
    return np.asarray(layout.mask(layout.draw(key, like), like))

  return mask


@pytest.mark.parametrize(
  ("by", "residual", "period", "decay"),
  [
    ("wrapper", "reset", 200, 0.4),
    ("wrapper", "keep", 200, 1.0),
    ("transform", "reset", 200, 0.4),
    ("transform", "keep", 200, 1.0),
  ],
)
def test_steps_below_the_precision_of_bfloat16_add_up(
  by, residual, period, decay
):
  """400 steps, each of which bfloat16 would round away, against float64."""
  weights = jnp.full((6, 20), 1.5, jnp.bfloat16)
  slope = jnp.asarray(np.tile([1.0, -0.5], 60).reshape(6, 20), jnp.bfloat16)
  learning_rate, steps, s = 1e-4, 400, 0.3
  move = learning_rate * slope.astype(jnp.float32) / s**2
  assert jnp.array_equal((weights + move).astype(jnp.bfloat16), weights)

  settings = {
    "resample_every": period,
    "anchor_decay": decay,
    "residual": residual,
    "target": None,
  }
  inner = optax.sgd(learning_rate)
  tx = transform(inner, **settings)
  linear = lambda params: jnp.sum((params["w"] * slope).astype(jnp.float32))

  def wrapper_step(mixed, _):
    trainable = mixed.trainable()
    grads = jax.grad(lambda t: linear(mixed.inject(t)))(trainable)
    updates, _ = inner.update(grads, inner.init(trainable))
    return mixed.apply_updates(updates), None

  def transform_step(carry, _):
    params, state = carry
    updates, state = tx.update(jax.grad(linear)(params), state, params)
    return (optax.apply_updates(params, updates), state), None

  @jit
  def run(params):
    if by == "wrapper":
      mixed = create(params, **settings)
      mixed, _ = jax.lax.scan(wrapper_step, mixed, length=steps)
      return mixed.params, mixed.eval_params(), mixed
    start = params, tx.init(params)
    (live, state), _ = jax.lax.scan(transform_step, start, length=steps)
    return live, gx.gmixout_eval_params(state, live), state

  live, deployed, state = run({"w": weights})
  assert live["w"].dtype == deployed["w"].dtype == jnp.bfloat16
  assert state.anchor["w"].dtype == state.learned["w"].dtype == jnp.float32

  mask, exact = drawn_mask(weights.shape, s), np.asarray(weights, np.float64)
  gradient = lambda _: np.asarray(slope, np.float64)
  if residual == "reset":
    *_, expected = oracle.gmixout(
      exact, gradient, mask, inner=oracle.Sgd(0, learning_rate), slots=36, s=s,
      decay=lambda _: decay, period=lambda _: period, steps=steps,
    )  # fmt: skip
  else:
    *_, expected = oracle.mixout(
      exact, gradient, lambda count: mask(count // period),
      inner=oracle.Sgd(0, learning_rate), s=s, steps=steps,
    )  # fmt: skip
  # One unit in the last place of 1.5: rounded once here, once by an episode.
  for ours, theirs in zip((live, deployed), expected, strict=True):
    ours = np.asarray(ours["w"], np.float64)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2**-7)
  assert np.abs(expected[1] - exact).max() > 2 * 2**-7


def test_bfloat16_weights_follow_gmixout():
  params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
  inner = INNER["sgd"]
  theirs, _, state = run_transform(transform(inner), params)
  live, mixed, _ = run_mixed(create(params), inner)
  # Two programs round in other places: an ulp here and there.
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(
      one.astype(jnp.float32), other.astype(jnp.float32), rtol=0, atol=2**-6
    ),
    live,
    theirs,
  )
  memory = lambda state: types((state.anchor, state.learned))
  assert memory(mixed) == memory(state)


def test_float32_weights_in_a_bfloat16_computation():
  def narrow_loss(params, batch):
    narrow = lambda leaf: leaf.astype(jnp.bfloat16)
    return loss(*jax.tree.map(narrow, (params, batch))).astype(jnp.float32)

  @jit
  def gradients(params, batch):
    mixed = create(params, target="blocks/1")
    of_mixed = lambda t: narrow_loss(mixed.inject(t), batch)
    packed = jax.grad(of_mixed)(mixed.trainable())
    return packed, jax.grad(narrow_loss)(params, batch), mixed.masks()

  packed, dense, mask = jax.device_get(gradients(PARAMS, BATCH))
  kernel = lambda tree: tree["blocks"][1]["kernel"]
  expected = packed_gradient("stratified", kernel(dense), kernel(mask))
  assert kernel(packed).dtype == np.float32
  # Nothing is rounded but what the computation itself has rounded.
  np.testing.assert_allclose(kernel(packed), expected, rtol=1e-6)


# A citizen of JAX.


def test_donated_in_a_loop():
  """A donated key or count must not be what another state starts from."""
  tx, traces = INNER["adamw"], []

  @functools.partial(jit, donate_argnums=(0, 1))
  def step(mixed, state, batch):
    traces.append(None)
    return mixed_step(tx, mixed, state, batch)

  @jit
  def init(mixed):
    return tx.init(mixed.trainable())

  for _ in range(2):
    mixed = create(jax.tree.map(jnp.copy, PARAMS))
    state = init(mixed)
    for batch in zip(*BATCHES, strict=True):
      given = mixed
      mixed, state = step(mixed, state, batch)
      assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert_close(mixed.params, trajectory_of_gmixout()[1])
  assert len(traces) == 1


@pytest.mark.parametrize(
  ("sampler", "residual", "dtype"),
  [
    *((sampler, "reset", jnp.float32) for sampler in SAMPLERS),
    ("stratified", "keep", jnp.float32),
    ("neuron", "reset", jnp.bfloat16),
    ("uniform", "keep", jnp.bfloat16),
  ],
)
def test_made_of_shapes_alone(sampler, residual, dtype):
  make = functools.partial(
    create,
    sampler=sampler,
    residual=residual,
    resample_every=optax.constant_schedule(2),
  )
  params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
  abstract = jax.eval_shape(lambda: params)
  mixed = make(params)
  assert types(make(abstract).anchor) == types(mixed.anchor)
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  shown = jax.eval_shape(make, abstract)
  assert shapes(shown) == shapes(mixed)
  # A step keeps all types, so that the result can go where its input came
  # from: a scan, a checkpoint, a donated buffer.
  tx = optax.adam(0.01)
  state = jax.eval_shape(lambda mixed: tx.init(mixed.trainable()), shown)
  step = functools.partial(mixed_step, tx)
  assert shapes(jax.eval_shape(step, shown, state, BATCH)) == shapes(
    (shown, state)
  )


@pytest.fixture(scope="module")
def interrupted():
  """What there is to save in mid-episode, and a function that trains on."""
  # bfloat16, rules and a schedule: all that a state may hold.
  params = make_params()
  layer = params["blocks"][0]
  layer["kernel"] = layer["kernel"].astype(jnp.bfloat16)
  rules = (("blocks/0/kernel", "mixed"), ("head", "dense"), ("", "frozen"))

  @jit
  def train(saved):
    def body(carry, batch):
      mixed, state = carry
      return mixed_step(INNER["adamw"], mixed, state, batch), None

    (mixed, state), _ = jax.lax.scan(body, saved, BATCHES)
    return (mixed, state), mixed.masks()

  @jit
  def start(params):
    mixed = create(params, target=rules, resample_every=lambda episode: 4)
    return mixed, INNER["adamw"].init(mixed.trainable())

  saved, _ = train(start(params))
  return saved, train


def assert_resumes(train, saved, restored):
  """Bit for bit; frozen leaves are still told from dense ones."""
  assert jax.tree.structure(restored) == jax.tree.structure(saved)
  expected, (resumed, mask) = train(saved), train(restored)
  jax.tree.map(np.testing.assert_array_equal, (resumed, mask), expected)
  moved = resumed[0].params["blocks"][0]["kernel"]
  assert not np.array_equal(moved, saved[0].params["blocks"][0]["kernel"])
  assert mask["head"]["bias"].all()
  assert not mask["blocks"][0]["bias"].any()


def test_flax_serialization(interrupted):
  saved, train = interrupted
  assert int(saved[0].scheduled.episode) == 2
  template = jax.tree.map(jnp.zeros_like, saved)
  data = serialization.to_bytes(saved)
  assert_resumes(train, saved, serialization.from_bytes(template, data))


def test_orbax(interrupted, tmp_path):
  saved, train = interrupted
  ocp.save(tmp_path / "checkpoint", {"train": saved})
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    saved,
  )
  restored = ocp.load(tmp_path / "checkpoint", {"train": abstract})
  assert_resumes(train, saved, restored["train"])


# Errors.


@pytest.fixture
def fitting():
  """Mixed parameters under rules, and what `trainable` looks like."""
  mixed = create(PARAMS, target=RULES)
  zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
  return mixed, jax.tree.map(zeros, jax.eval_shape(mixed.trainable))


def refusal(mixed, name, tree):
  accept = mixed.inject if name == "trainable" else mixed.apply_updates
  with pytest.raises(ValueError, match=f"^{name} must h") as info:
    jax.eval_shape(lambda: accept(tree))
  return str(info.value)


@pytest.mark.parametrize("name", ["trainable", "updates"])
def test_what_does_not_fit_is_refused(fitting, name):
  mixed, tree = fitting
  head, blocks = tree["head"], tree["blocks"]
  message = functools.partial(refusal, mixed, name)
  assert "['blocks', 'head']" in message({"head": head})
  assert "['bias', 'kernel']" in message(tree | {"head": {"kernel": 0.0}})
  assert "1 != 2" in message(tree | {"blocks": blocks[:1]})
  kernel = PARAMS["blocks"][1]["kernel"]
  whole = tree | {"blocks": [blocks[0], blocks[1] | {"kernel": kernel}]}
  assert "(20, 5) for the leaf 'blocks/1/kernel'" in message(whole)
  assert "(20, 16)" in message(whole)
  short = tree | {"head": head | {"bias": jnp.ones(4)}}
  assert "(3,) for the leaf 'head/bias'" in message(short)
  assert "(4,)" in message(short)


@pytest.mark.parametrize("name", ["trainable", "updates"])
@pytest.mark.parametrize("absent", [None, optax.MaskedNode(), "kernel"])
def test_a_leaf_without_a_shape_is_refused(fitting, name, absent):
  mixed, tree = fitting
  tree["head"]["kernel"] = absent
  assert "'head/kernel'" in refusal(mixed, name, tree)


@pytest.mark.parametrize("name", ["trainable", "updates"])
def test_a_frozen_leaf_takes_no_array(fitting, name):
  """It would move, or be shadowed in the loss by another value."""
  mixed, tree = fitting
  tree["blocks"][0]["bias"] = jnp.ones(20)
  assert "'blocks/0/bias'" in refusal(mixed, name, tree)


@pytest.mark.parametrize(
  ("rules", "message"),
  [
    (((r"kernel", "mix"), (r"", "frozen")), "gives the label 'mix'"),
    (((r"kernel", "mixed"), (r"head", "dense")), "'blocks/0/bias' matches"),
    (((r"cls", "mixed"), (r"", "frozen")), "rule 'cls' matches none"),
  ],
)
def test_bad_rules_are_refused(rules, message):
  with pytest.raises(ValueError, match=message):
    create(PARAMS, target=rules)


@pytest.mark.parametrize(
  ("rules", "quoted"),
  [
    ((("(", "mixed"), ("", "frozen")), r"'\('"),  # no regular expression
    (("kernel", "mixed"), "kernel"),  # a rule where rules are meant
    (("fc", "mixed"), "fc"),  # which Python would unpack to "f", "c"
    ((("", "dense"),), "dense"),  # nothing is mixed
    ((), r"\(\)"),
  ],
)
def test_malformed_rules_are_refused(rules, quoted):
  with pytest.raises(ValueError, match=rf"(target|rule).*{quoted}"):
    create(PARAMS, target=rules)


def test_gmixout_takes_no_rules():
  with pytest.raises(ValueError, match=r"optax\.partition") as info:
    transform(optax.sgd(0.1), target=RULES)
  assert repr(RULES) in str(info.value)
