"""Tests `gmixout_jax/clip/layers.py` against float64 NumPy."""

import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gmixout_jax import clip
from gmixout_jax.clip import config as config_lib
from gmixout_jax.clip import layers

pytestmark = pytest.mark.slow

CONFIG = dict(width=12, depth=1, heads=3, mlp_width=20)


def numpy_block(block, x, *, activation, eps, causal):
  """The block in float64, one head at a time."""
  weights = jax.tree.map(
    lambda p: np.asarray(p, np.float64), nnx.to_pure_dict(nnx.state(block))
  )

  def norm(name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(
      x.var(-1, keepdims=True) + eps
    )
    return x * weights[name]["scale"] + weights[name]["bias"]

  def linear(layer, x):
    return x @ layer["kernel"] + layer["bias"]

  attention, mlp = weights["attention"], weights["mlp"]
  y = norm("norm1", x)
  q, k, v = (linear(attention[n], y) for n in ("query", "key", "value"))
  heads, size = block.attention.heads, x.shape[-1] // block.attention.heads
  mixed = np.zeros_like(y)
  for h in range(heads):
    cut = slice(h * size, (h + 1) * size)
    scores = q[..., cut] @ k[..., cut].swapaxes(1, 2) / math.sqrt(size)
    if causal:
      scores = np.where(np.tri(x.shape[1], dtype=bool), scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed[..., cut] = scores / scores.sum(-1, keepdims=True) @ v[..., cut]
  x = x + linear(attention["out"], mixed)
  return x + linear(
    mlp["fc2"], activation(linear(mlp["fc1"], norm("norm2", x)))
  )


def exact_gelu(x):
  return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def quick_gelu(x):
  return x / (1 + np.exp(-1.702 * x))


ORACLES = {"gelu": exact_gelu, "quick_gelu": quick_gelu}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_block_agrees_with_float64(make, rng, activation, causal):
  config = clip.VisionConfig(activation=activation, eps=0.1, **CONFIG)
  block = make(lambda rngs: layers.Block(config, causal=causal, rngs=rngs))
  x = rng.normal(size=(2, 5, 12))
  expected = numpy_block(
    block, x, activation=ORACLES[activation], eps=0.1, causal=causal
  )
  np.testing.assert_allclose(
    block(jnp.asarray(x, jnp.float32)), expected, rtol=1e-4, atol=1e-4
  )


def test_activations_are_the_config_s_and_differ(rng):
  assert set(layers.ACTIVATIONS) == set(typing.get_args(config_lib.Activation))
  x = rng.normal(size=1000) * 3
  for name, oracle in ORACLES.items():
    found = layers.ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, oracle(x), atol=1e-6)
  gap = np.abs(exact_gelu(x) - quick_gelu(x)).max()
  assert 0.015 < gap < 0.0205


def test_later_tokens_do_not_change_earlier_ones(make, rng):
  config = clip.TextConfig(**CONFIG)
  block = make(lambda rngs: layers.Block(config, causal=True, rngs=rngs))
  x = jnp.asarray(rng.normal(size=(1, 6, 12)), jnp.float32)
  # One feature only: the norm takes away what is added to all.
  before, after = block(x), block(x.at[:, 4, 0].add(1.0))
  np.testing.assert_array_equal(before[:, :4], after[:, :4])
  assert (np.abs(before[:, 4:] - after[:, 4:]).max(axis=-1) > 1e-6).all()


def test_remat_changes_memory_not_gradients(make, rng):
  config = clip.VisionConfig(**CONFIG)
  blocks = make(
    lambda rngs: layers.make_blocks(config, causal=False, rngs=rngs)
  )
  graphdef, state = nnx.split(blocks)
  x = jnp.asarray(rng.normal(size=(2, 4, 12)), jnp.float32)

  def loss(state, remat):
    blocks = nnx.merge(graphdef, state)
    return (layers.run_blocks(blocks, x, remat=remat) ** 2).sum()

  jaxprs = [
    str(jax.make_jaxpr(jax.grad(lambda s, r=r: loss(s, r)))(state))
    for r in (False, True)
  ]
  assert "remat" not in jaxprs[0]
  assert "remat" in jaxprs[1]
  kept, again = (
    jax.jit(jax.grad(loss), static_argnums=1)(state, r) for r in (False, True)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    kept,
    again,
  )
