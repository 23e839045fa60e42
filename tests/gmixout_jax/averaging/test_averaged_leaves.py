"""Tests `gmixout_jax/averaging/averaged_leaves.py` through every average."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gmixout_jax import averaging
from tests.combinations import every_value, tried


def greedy(trees):
  return averaging.greedy_soup(trees, lambda tree: 1.0).params


def learned(trees, per_leaf):
  real = lambda w: jnp.real(w).astype(jnp.float32)
  loss = lambda params, scale, batch: jnp.sum(real(params["w"])) * scale
  return averaging.learned_soup(
    trees, loss, [0], per_leaf=per_leaf, learning_rate=0.0
  ).params


def components(trees):
  # Of complete trees, so that leaves that never act are looked at, too.
  averaging.components(trees, 1)
  groups = {"w": ("w",)}
  return averaging.mix_components(*trees, groups, {"w": 0.5})


def manifold(trees):
  stay = lambda loss, start, low, high, budget: start
  soup = averaging.manifold_soup(trees, lambda tree: 1.0, stay, depth=1)
  assert soup.ingredients == (0, 1)
  return soup.params


def trajectory(trees, rate=averaging.uniform, start=1):
  """Of an "optimizer" that goes from the first tree to the other one."""
  first, other = trees
  move = lambda a, b: b - a if jnp.issubdtype(a.dtype, jnp.inexact) else a
  updates = jax.tree.map(move, first, other)
  tx = averaging.average(optax.identity(), rate())
  state = jax.jit(tx.init)(first)
  step = jax.jit(tx.update)
  for moves in (optax.tree.zeros_like(first["w"]), updates["w"]):
    _, state = step(updates | {"w": moves}, state, first)
    first = other if moves is updates["w"] else first
  return averaging.average_params(state, first)


AVERAGES = {
  "interpolate": lambda trees: averaging.interpolate(*trees, 0.5),
  "interpolate traced": lambda trees: averaging.interpolate(
    *trees, jnp.float32(0.5)
  ),
  "mean": averaging.mean,
  "weighted mean": lambda trees: averaging.mean(trees, [2, 2]),
  "mix_leaves": lambda trees: averaging.mix_leaves(trees, jnp.array([0.5] * 2)),
  "model_stock": lambda trees: (
    averaging.model_stock(
      jax.tree.map(
        lambda leaf: (
          jnp.zeros_like(leaf)
          if jnp.issubdtype(leaf.dtype, jnp.inexact)
          else leaf
        ),
        trees[0],
      ),
      trees,
    ).params
  ),
  "greedy_soup": greedy,
  "learned_soup": functools.partial(learned, per_leaf=False),
  "learned_soup by leaf": functools.partial(learned, per_leaf=True),
  "mix_components": components,
  "manifold_soup": manifold,
  "average": trajectory,
}

# Values whose half sum every type holds. Model Stock's point lies elsewhere:
# at t = 2 cos θ / (1 + cos θ) of it, with the angle between the two.
FIRST, OTHER = [1.0, 2.0, -4.0], [3.0, 2.0, 0.0]


def expected(name, dtype):
  both = np.array([FIRST, OTHER], np.complex128)
  if jnp.issubdtype(dtype, jnp.complexfloating):
    both *= [[1 + 1j], [1 - 1j]]
  if name != "model_stock":
    return both.mean(0)
  lengths = np.linalg.norm(both, axis=1)
  cosine = np.vdot(*both).real / np.prod(lengths)
  return 2 * max(cosine, 0) / (1 + max(cosine, 0)) * both.mean(0)


def trees_of(dtype, **others):
  turned = jnp.issubdtype(dtype, jnp.complexfloating)
  first = np.array(FIRST) * (1 + 1j if turned else 1)
  other = np.array(OTHER) * (1 - 1j if turned else 1)
  as_leaf = lambda values: jnp.asarray(values).astype(dtype)
  return [{"w": as_leaf(values), **others} for values in (first, other)]


WITHOUT_MEAN = {
  "count": lambda: jnp.int32(2**31 - 1),
  "mask": lambda: jnp.array([True, False]),
  "small": lambda: jnp.array([-8, 7], jnp.int4),
  "bytes": lambda: jnp.array([255, 3], jnp.uint8),
  "key": lambda: jax.random.key(7),
}


@pytest.mark.parametrize(
  ("name", "dtype"),
  every_value(
    AVERAGES, [jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64]
  ),
)
def test_every_average_keeps_what_has_no_mean_and_each_type(name, dtype):
  others = {key: make() for key, make in WITHOUT_MEAN.items()}
  found = AVERAGES[name](trees_of(dtype, **others))
  assert found["w"].dtype == dtype
  np.testing.assert_allclose(
    np.asarray(found["w"], np.complex128), expected(name, dtype), rtol=1e-2
  )
  for key, leaf in others.items():
    assert found[key].dtype == leaf.dtype
    assert jnp.array_equal(found[key], leaf), key


@pytest.mark.parametrize(
  ("name", "dtype"),
  every_value(AVERAGES, ["float64", "complex128", "float32"]),
)
def test_every_average_keeps_types_of_64_bits(name, dtype):
  with jax.enable_x64(True):
    count = jnp.int64(2**53 + 1)  # no float64 holds it
    trees = trees_of(jnp.dtype(dtype), count=count)
    found = AVERAGES[name](trees)
    assert (found["w"].dtype, found["count"].dtype) == (dtype, "int64")
    assert int(found["count"]) == 2**53 + 1
    rtol = 1e-6 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(
      found["w"], expected(name, found["w"].dtype), rtol
    )


@pytest.mark.parametrize(
  ("name", "dtype"),
  [
    *every_value(
      # JAX adds no float8, so no optimizer moves it.
      [name for name in AVERAGES if name != "average"],
      [jnp.float32, jnp.bfloat16, jnp.complex64, jnp.float8_e4m3fn],
    ),
    *tried(
      itertools.product(
        ["average"], [jnp.float32, jnp.bfloat16, jnp.complex64]
      ),
      lambda _, dtype: dtype == jnp.bfloat16,
    ),
  ],
)
def test_every_average_does_without_promotion(name, dtype):
  with jax.numpy_dtype_promotion("strict"):
    found = AVERAGES[name](trees_of(dtype, count=jnp.int32(3)))
  assert found["w"].dtype == dtype
  np.testing.assert_allclose(
    np.asarray(found["w"], np.complex128), expected(name, dtype), rtol=0.07
  )


RATES = {
  "exponential": lambda: averaging.exponential(0.5),
  "uniform": lambda: averaging.uniform(start=1),
  "segments": lambda: averaging.segments(every=2),
}


@pytest.mark.parametrize("rate", RATES)
def test_every_rate_does_without_promotion(rate):
  trees = trees_of(jnp.bfloat16)
  wanted = trajectory(trees, RATES[rate])
  with jax.numpy_dtype_promotion("strict"):
    found = trajectory(trees, RATES[rate])
  np.testing.assert_array_equal(found["w"], wanted["w"])


@pytest.mark.parametrize(
  ("ours", "theirs", "quoted"),
  [
    (
      lambda: jnp.int32(3),
      lambda: jnp.int32(4),
      "int32.* got 3 in .* and 4 in",
    ),
    (lambda: np.int64(3), lambda: np.int64(4), "int.* got 3 in .* and 4 in"),
    (
      lambda: jnp.array([True, False]),
      lambda: jnp.array([True, True]),
      r"bool.* got \[ ?True, False\] in .* and \[ ?True, True\] in",
    ),
    (
      lambda: jax.random.key(7),
      lambda: jax.random.key(8),
      r"key.* got \[0, 7\] in .* and \[0, 8\] in",
    ),
    (
      lambda: jnp.arange(100),
      lambda: jnp.arange(100).at[99].set(7),
      r"got \[ 0, 1, \.\.\., 98, 99\] in .* and \[ 0, 1, \.\.\., 98, 7\] in",
    ),
  ],
)
@pytest.mark.parametrize("name", AVERAGES)
def test_every_average_names_what_has_no_mean_and_differs(
  name, ours, theirs, quoted
):
  first, other = trees_of(jnp.float32)
  first["state"], other["state"] = {"count": ours()}, {"count": theirs()}
  with pytest.raises(ValueError, match=rf"leaf 'state/count' .*{quoted}"):
    AVERAGES[name]([first, other])


def test_integers_of_another_width_or_library_agree():
  trees = [{"n": n} for n in (np.int64(3), jnp.int32(3), 3)]
  assert averaging.mean(trees)["n"] is trees[0]["n"]
  with pytest.raises(ValueError, match=r"'n' .* got 3 in .* and 2\.5 in"):
    averaging.mean([{"n": 3}, {"n": 2.5}])


def test_python_floats_are_averaged():
  found = averaging.interpolate({"w": 1.0}, {"w": np.float64(2.0)}, 0.25)
  assert float(found["w"]) == 1.25


def test_integers_are_refused_under_jit():
  trees = [{"w": jnp.ones(2), "count": jnp.int32(3)}] * 2
  with pytest.raises(ValueError, match=r"leaf 'count' .*under jit"):
    jax.jit(averaging.interpolate)(*trees, 0.5)
  # What is not traced is compared as ever.
  mixed = jax.jit(lambda alpha: averaging.interpolate(*trees, alpha))(0.5)
  assert int(mixed["count"]) == 3


@pytest.mark.parametrize("name", ["interpolate", "mean", "model_stock"])
def test_leaves_of_other_shapes_or_real_ones_among_complex_are_named(name):
  first = {"a": {"w": jnp.ones((1, 3))}}
  second = {"a": {"w": jnp.ones((2, 3))}}
  message = r"leaf 'a/w' has shape \(1, 3\) in .* but \(2, 3\) in"
  with pytest.raises(ValueError, match=message):
    AVERAGES[name]([first, second])
  second = {"a": {"w": jnp.ones((1, 3), jnp.complex64)}}
  message = "leaf 'a/w' is float32 in .* but complex64 in"
  with pytest.raises(ValueError, match=message):
    AVERAGES[name]([first, second])


class Network(nnx.Module):
  def __init__(self, seed):
    rngs = nnx.Rngs(seed)
    self.fc = nnx.Linear(3, 2, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(5))


def test_the_state_of_a_network_with_dropout_is_averaged():
  networks = [Network(seed) for seed in (0, 1)]
  states = [nnx.state(network) for network in networks]
  kernels = [np.asarray(state["fc"]["kernel"][...]) for state in states]
  mean = averaging.mean(states)
  nnx.update(networks[0], mean)
  np.testing.assert_allclose(
    mean["fc"]["kernel"][...], np.mean(kernels, 0), atol=1e-7
  )
  networks[1].dropout(jnp.ones(3))  # draws, so its count goes up
  with pytest.raises(ValueError, match=r"'dropout/rngs/count' .* 0 in .* 1 in"):
    averaging.mean([nnx.state(network) for network in networks])


def test_the_average_of_a_run_may_be_read_under_jit():
  trees = trees_of(jnp.float32, count=jnp.int32(3))
  tx = averaging.average(optax.sgd(0.0), averaging.uniform())
  state = tx.init(trees[0])
  found = jax.jit(averaging.average_params)(state, trees[0])
  assert int(found["count"]) == 3
  np.testing.assert_array_equal(found["w"], trees[0]["w"])


def test_model_stock_has_no_ratio_for_what_has_no_mean():
  tree = {"w": jnp.ones(2), "key": jax.random.key(0)}
  ratios = averaging.model_stock(tree, [tree | {"w": jnp.zeros(2)}] * 2).ratios
  assert (float(ratios["w"]), float(ratios["key"])) == (1.0, 0.0)
