"""What towers compute in bfloat16 and what in float32, and what they keep."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gmixout_jax as gx
from gmixout_jax import clip
from gmixout_jax.clip import layers
from tests.combinations import EXHAUSTIVE, tried
from tests.gmixout_jax.compiling import jit
from tests.gmixout_jax.mixed_runs import packed_gradient

CONFIG = clip.VisionConfig.vit(
  image_size=16,
  patch_size=4,
  width=32,
  depth=1,
  heads=2,
  mlp_width=40,
  num_classes=5,
)
NARROW = dataclasses.replace(CONFIG, dtype="bfloat16")
PIXELS = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)


def pixels(rng):
  return jnp.asarray(rng.normal(size=PIXELS.shape), jnp.float32)


def split(make, config):
  model = make(lambda rngs: clip.ViT(config, rngs=rngs))
  graphdef, params = nnx.split(model, nnx.Param)
  return graphdef, nnx.to_pure_dict(params)


def squares(graphdef, params, x):
  return jnp.mean(jnp.square(nnx.merge(graphdef, params)(x)))


@pytest.mark.parametrize("remat", tried([False, True], lambda remat: not remat))
def test_float32_is_flax_s_to_the_bit(make, rng, monkeypatch, remat):
  """Flax's own layers around JAX's own attention, at JAX's defaults."""
  config = dataclasses.replace(CONFIG, remat=remat)
  x = pixels(rng)

  def found():
    graphdef, params = split(make, config)
    of = lambda p, x: squares(graphdef, p, x)
    return jit(jax.value_and_grad(of))(params, x)

  ours = found()
  monkeypatch.setattr(layers, "LayerNorm", nnx.LayerNorm)
  monkeypatch.setattr(
    layers.attention_lib,
    "attend",
    lambda query, key, value, *, causal, implementation: (
      jax.nn.dot_product_attention(query, key, value, is_causal=causal)
    ),
  )
  jax.tree.map(np.testing.assert_array_equal, ours, found())


def test_types_of_a_bfloat16_tower(make):
  graphdef, params = split(make, NARROW)
  logits = jax.eval_shape(
    lambda p, x: nnx.merge(graphdef, p)(x), params, PIXELS
  )
  assert logits.dtype == jnp.float32
  gradients = jax.eval_shape(
    jax.grad(lambda p, x: squares(graphdef, p, x)), params, PIXELS
  )
  types = {leaf.dtype for leaf in jax.tree.leaves((params, gradients))}
  assert types == {jnp.dtype("float32")}
  jaxpr = jax.make_jaxpr(lambda p, x: nnx.merge(graphdef, p).features(x))
  products = [
    eqn
    for eqn in _equations(jaxpr(params, PIXELS).jaxpr)
    if eqn.primitive.name in ("dot_general", "conv_general_dilated")
  ]
  # Patches, six matrices, scores and the mean of values.
  assert len(products) == 9
  read = {var.aval.dtype for eqn in products for var in eqn.invars}
  assert read == {jnp.dtype("bfloat16")}


def _equations(jaxpr: Any):
  for eqn in jaxpr.eqns:
    yield eqn
    for inner in jax.tree.leaves(list(eqn.params.values())):
      inner = getattr(inner, "jaxpr", inner)
      if hasattr(inner, "eqns"):
        yield from _equations(inner)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_bfloat16_norms_have_float32_statistics(make, rng, offset):
  """Against float64, of features whose mean is a hundred deviations."""
  norm = make(lambda rngs: layers.layer_norm(NARROW, rngs=rngs))
  x = jnp.asarray(offset + rng.normal(size=(4, 32)), jnp.bfloat16)
  weights = rng.normal(size=x.shape)
  of = lambda x: jnp.sum(norm(x).astype(jnp.float32) * weights)
  y, gradient = norm(x), jax.grad(of)(x)
  assert y.dtype == gradient.dtype == jnp.bfloat16

  wide, scale, bias, flow = (
    np.asarray(jnp.asarray(leaf, jnp.bfloat16), np.float64)
    for leaf in (x, norm.scale[...], norm.bias[...], weights)
  )
  std = np.sqrt(wide.var(-1, keepdims=True) + CONFIG.eps)
  unit = (wide - wide.mean(-1, keepdims=True)) / std
  # One rounding, to 8 bits.
  np.testing.assert_allclose(
    np.asarray(y, np.float64), unit * scale + bias, rtol=2**-8, atol=1e-5
  )
  flow = flow * scale
  mean = lambda v: v.mean(-1, keepdims=True)
  expected = (flow - mean(flow) - unit * mean(flow * unit)) / std
  np.testing.assert_allclose(
    np.asarray(gradient, np.float64),
    expected,
    rtol=2**-7,
    atol=2**-8 * np.abs(expected).max(),
  )


def test_a_bfloat16_norm_keeps_its_input_alone(make):
  norm = make(lambda rngs: layers.layer_norm(NARROW, rngs=rngs))
  graphdef, params = nnx.split(norm, nnx.Param)

  def kept(x):
    return jax.vjp(lambda p, x: nnx.merge(graphdef, p)(x), params, x)[1]

  large = jax.ShapeDtypeStruct((7, 32), jnp.bfloat16)
  held = jax.tree.leaves(jax.eval_shape(kept, large))
  of_inputs = [leaf.dtype for leaf in held if leaf.shape == large.shape]
  assert of_inputs == [jnp.dtype("bfloat16")]


@EXHAUSTIVE  # `test_nnx_taps.py` has such products, and such a model
@pytest.mark.parametrize("sampler", ["stratified", "neuron"])
def test_packed_gradients_in_bfloat16_are_the_dense_ones(make, rng, sampler):
  graphdef, params = split(make, NARROW)
  # As `mixed_runs` sets it up, with the names of a ViT.
  settings: dict[str, Any] = dict(sparsity=0.7, key=0, sampler=sampler)
  mixed = gx.MixedParams.create(
    params, target="blocks/0/mlp/fc1/kernel", **settings
  )

  @jit
  def gradients(mixed, params, x):
    def of(trainable):
      model = gx.nnx.merge(graphdef, mixed, trainable, nnx.State({}))
      return jnp.mean(jnp.square(model(x)))

    packed = jax.grad(of)(mixed.trainable())
    dense = jax.grad(lambda p: squares(graphdef, p, x))(params)
    return packed, dense, mixed.masks()

  packed, dense, masks = jax.device_get(gradients(mixed, params, pixels(rng)))
  kernel = lambda tree: tree["blocks"][0]["mlp"]["fc1"]["kernel"]
  assert kernel(packed).dtype == kernel(dense).dtype == np.float32
  expected = packed_gradient(sampler, kernel(dense), kernel(masks))
  assert np.abs(expected).max() > 1e-4
  np.testing.assert_allclose(kernel(packed), expected, rtol=1e-6, atol=1e-9)
