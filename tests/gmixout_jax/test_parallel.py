"""Eight devices do what one does, and send each other only what they must."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import gmixout_jax as gx
from experiments.bench.comms import messages
from gmixout_jax import parallel
from tests.combinations import tried

pytestmark = pytest.mark.slow

EVERY = 3
STEPS = 3 * EVERY  # three episodes
LAYERS = {"first": (40, 80), "second": (80, 48)}


def params():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(0.2 * rng.standard_normal(shape), "float32")
  return {name: {"w": draw(*s), "b": draw(s[1])} for name, s in LAYERS.items()}


def batch():
  rng = np.random.default_rng(1)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), "float32")
  return draw(32, 40), draw(32, 48)


def loss_fn(params, batch):
  x, y = batch
  x = jnp.tanh(x @ params["first"]["w"] + params["first"]["b"][None])
  x = x @ params["second"]["w"] + params["second"]["b"][None]
  return jnp.mean((x - y) ** 2)


def dense_step():
  """`gmixout`, whose gradients are dense."""
  tx = gx.gmixout(optax.adam(1e-2), key=0, resample_every=EVERY)

  def step(state, batch):
    params, opt_state = state
    loss, grads = jax.value_and_grad(loss_fn)(params, batch)
    loss, grads = parallel.mean((loss, grads))
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss

  return step, (params(), tx.init(params()))


def compact_step(sampler="stratified"):
  tx = optax.adam(1e-2)
  mixed = gx.MixedParams.create(
    params(), key=0, resample_every=EVERY, sampler=sampler
  )

  def step(state, batch):
    mixed, opt_state = state
    trainable = mixed.trainable()
    whole = parallel.gathered(mixed)
    loss, grads = jax.value_and_grad(
      lambda trainable: loss_fn(whole.inject(trainable), batch)
    )(parallel.gathered(trainable))
    loss, grads = parallel.mean((loss, grads))
    updates, opt_state = tx.update(grads, opt_state, trainable)
    return (mixed.apply_updates(updates), opt_state), loss

  return step, (mixed, tx.init(mixed.trainable()))


KINDS = {"gmixout": dense_step, "compact": compact_step}


def weights(state):
  return getattr(state[0], "params", state[0])


def train(step, state, count, style, sharded=False):
  """Losses and weights after three episodes."""
  mesh = parallel.data_mesh(jax.devices()[:count])
  shardings = parallel.row_shardings(state, mesh) if sharded else None
  if sharded:
    state = jax.device_put(state, shardings)
  else:
    state = parallel.replicate(state, mesh, style=style)
  run = parallel.data_parallel(
    step, mesh, style=style, state_sharding=shardings
  )
  losses = []
  for _ in range(STEPS):
    state, loss = run(state, batch())
    losses.append(float(loss))
  if style == "pmap":
    state = parallel.unreplicate(state)
  return losses, state


def without_devices(step, state):
  """The same steps on one device, by a plain jit."""
  one = jax.jit(jax.vmap(step, (None, 0), None, axis_name=parallel.AXIS))
  losses = []
  for _ in range(STEPS):
    state, loss = one(state, jax.tree.map(lambda leaf: leaf[None], batch()))
    losses.append(float(loss))
  return losses, state


def assert_same_trajectory(found, expected):
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
  for ours, theirs in zip(
    jax.tree.leaves(weights(found[1])),
    jax.tree.leaves(weights(expected[1])),
    strict=True,
  ):
    difference = np.abs(np.asarray(ours) - np.asarray(theirs)).max()
    assert difference <= 1e-5 * np.abs(np.asarray(theirs)).max()


@functools.cache
def alone(kind):
  losses, after = without_devices(*KINDS[kind]())
  assert losses[-1] < 0.9 * losses[0]
  return losses, after


@pytest.mark.parametrize(
  ("kind", "style"),
  # The compact step follows, under jit, with its weights cut up.
  tried(
    itertools.product(KINDS, parallel.STYLES),
    lambda kind, style: kind == "gmixout" and style != "jit",
  ),
)
def test_eight_devices_follow_one(kind, style):
  assert_same_trajectory(train(*KINDS[kind](), 8, style), alone(kind))


@pytest.mark.parametrize("kind", tried(KINDS, lambda kind: kind == "compact"))
def test_sharded_weights_follow_whole_ones(kind):
  found = train(*KINDS[kind](), 8, "jit", sharded=True)
  assert_same_trajectory(found, alone(kind))
  for leaf in jax.tree.leaves(weights(found[1])):
    assert leaf.sharding.shard_shape(leaf.shape)[0] == leaf.shape[0] / 8


def hlo(style, sharded=False, sampler="stratified"):
  step, state = compact_step(sampler)
  mesh = parallel.data_mesh()
  shardings = parallel.row_shardings(state, mesh) if sharded else None
  state = jax.device_put(
    state, shardings or jax.NamedSharding(mesh, PartitionSpec())
  )
  run = parallel.data_parallel(
    step, mesh, style=style, state_sharding=shardings
  )
  return run.lower(state, batch()).compile().as_text()


@pytest.mark.optimized
@pytest.mark.parametrize(
  ("style", "sampler"),
  tried(
    [("shard_map", "stratified"), ("jit", "neuron")],
    lambda style, _: style == "shard_map",
  ),
)
def test_only_packed_gradients_are_reduced(style, sampler):
  found = messages(hlo(style, sampler=sampler))
  assert {(m.kind, m.dtype) for m in found} == {("all-reduce", "f32")}
  packed = sum(np.prod(s) // 10 for s in LAYERS.values())
  if sampler == "stratified":
    packed = sum(rows * round(cols / 10) for rows, cols in LAYERS.values())
  biases = sum(cols for _, cols in LAYERS.values())
  assert sum(m.nbytes for m in found) == 4 * (packed + biases + 1)  # the loss


@pytest.mark.optimized
def test_no_index_crosses_the_network_where_weights_are_sharded():
  found = messages(hlo("jit", sharded=True))
  assert {m.dtype for m in found} == {"f32"}
  gathered = sum(m.nbytes for m in found if m.kind == "all-gather")
  dense = sum(rows * cols + cols for rows, cols in LAYERS.values())
  assert gathered <= 4 * dense  # the weights, once
  reduced = sum(m.nbytes for m in found if m.kind == "all-reduce")
  assert reduced < 4 * dense / 5


def test_a_step_that_forgets_the_key_of_its_part_sees_the_same_key():
  def step(state, batch):
    key = jax.random.fold_in(state, parallel.index())
    drawn = jax.random.uniform(key)
    return state, parallel.mean((drawn, drawn**2))

  mesh = parallel.data_mesh()
  run = parallel.data_parallel(step, mesh)
  _, (first, second) = run(jax.random.key(0), jnp.zeros(8))
  expected = [
    float(jax.random.uniform(jax.random.fold_in(jax.random.key(0), i)))
    for i in range(8)
  ]
  assert float(first) == pytest.approx(np.mean(expected))
  assert float(second) == pytest.approx(np.mean(np.square(expected)))


def test_keys_and_counters_are_not_sharded():
  mesh = parallel.data_mesh(jax.devices()[:2])
  step, state = compact_step()
  del step
  shardings = parallel.row_shardings(state, mesh)
  kinds = {True: [], False: []}
  for leaf, sharding in zip(
    jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True
  ):
    floats = leaf.dtype.kind == "f"
    kinds[floats].append(sharding.shard_shape(leaf.shape) == leaf.shape)
  assert kinds[False]
  assert all(kinds[False])
  assert not all(kinds[True])
  # The key is two words, which two devices would divide.
  assert any(
    leaf.dtype == jnp.uint32 and leaf.shape == (2,)
    for leaf in jax.tree.leaves(state)
  )


def test_arguments_are_checked():
  with pytest.raises(ValueError, match=r"style must be one of .* got 'xmap'"):
    parallel.data_parallel(lambda s, b: (s, s), style="xmap")
  with pytest.raises(ValueError, match=r"style must be one of .* got 'xmap'"):
    parallel.replicate(jnp.zeros(8), parallel.data_mesh(), style="xmap")
  with pytest.raises(ValueError, match="state_sharding is for style='jit'"):
    parallel.data_parallel(lambda s, b: (s, s), state_sharding=1)
  for style in parallel.STYLES:
    run = parallel.data_parallel(lambda s, b: (s, s), style=style)
    with pytest.raises(ValueError, match=r"evenly among 8 devices.*\(9, 2\)"):
      run(jnp.zeros(8), jnp.zeros((9, 2)))
  with pytest.raises(ValueError, match=r"12 examples cannot .* 8 devices"):
    parallel.local_slice(12)
