"""Tests `gmixout_jax/clip/model.py` and the golden vectors of a CLIP."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gmixout_jax import clip
from tests.combinations import EXHAUSTIVE

pytestmark = pytest.mark.slow

TOWER = dict(width=12, depth=1, heads=3, mlp_width=20)
CONFIG = clip.CLIPConfig(
  vision=clip.VisionConfig(image_size=16, patch_size=8, **TOWER),
  text=clip.TextConfig(
    vocab_size=20, context_length=7, eos_token_id=19, **TOWER
  ),
  projection_dim=6,
)
IDS = np.array([[18, 3, 19], [18, 4, 19], [18, 19, 19], [18, 0, 19]])


@pytest.fixture(scope="module")
def model(make):
  return make(lambda rngs: clip.CLIP(CONFIG, rngs=rngs))


@pytest.mark.shared
def test_agrees_with_the_reference_implementation(shared):
  folder = shared / "golden/clip_hf_quick_gelu"
  model = clip.from_pretrained(folder)
  expected = np.load(folder / "expected.npz")
  pixels = expected["pixel_values_nchw"].transpose(0, 2, 3, 1)
  ids = expected["input_ids"]

  @nnx.jit
  def outputs(model, pixels, ids):
    return {
      "image_embeds": model.encode_image(pixels),
      "text_embeds": model.encode_text(ids),
      "logits_per_image": model(pixels, ids),
      # Theirs is projected, but not yet of unit length.
      "vision_pooled": model.vision_projection(model.vision.features(pixels)),
      "vision_last_hidden": model.vision.tokens(pixels),
    }

  found = outputs(model, pixels, ids.astype(np.int32))
  assert set(found) | {"pixel_values_nchw", "input_ids"} == set(expected)
  for name, value in found.items():
    np.testing.assert_allclose(
      value, expected[name], rtol=0, atol=1e-4, err_msg=name
    )


def test_logits_are_scaled_cosines_of_unit_embeddings(model, rng):
  pixels = rng.normal(size=(3, 16, 16, 3)).astype(np.float32)
  image, text, logits = nnx.jit(
    lambda m: (m.encode_image(pixels), m.encode_text(IDS), m(pixels, IDS))
  )(model)
  assert (image.shape, text.shape) == ((3, 6), (4, 6))
  for x in (image, text):
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1.0, rtol=1e-6)
  expected = (
    np.exp(np.float64(model.logit_scale))
    * np.float64(image)
    @ np.float64(text).T
  )
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_parameter_paths_are_the_documented_ones():
  model = nnx.eval_shape(lambda: clip.CLIP(CONFIG, rngs=nnx.Rngs(0)))
  flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
  found = {"/".join(map(str, path)): leaf.shape for path, leaf in flat}
  outside = {k: v for k, v in found.items() if "/blocks/" not in k}
  assert outside == {
    "logit_scale": (),
    "vision_projection/kernel": (12, 6),
    "text_projection/kernel": (12, 6),
    "vision/patch_embedding/kernel": (8, 8, 3, 12),
    "vision/class_embedding": (12,),
    "vision/position_embedding": (5, 12),
    "vision/pre_norm/scale": (12,),
    "vision/pre_norm/bias": (12,),
    "vision/norm/scale": (12,),
    "vision/norm/bias": (12,),
    "text/token_embedding/embedding": (20, 12),
    "text/position_embedding": (7, 12),
    "text/norm/scale": (12,),
    "text/norm/bias": (12,),
  }
  blocks = {k.split("/", 1)[1] for k in found if "/blocks/" in k}
  assert len(found) - len(outside) == 2 * len(blocks) == 2 * 16


@EXHAUSTIVE  # each part of it has a test
def test_a_fresh_model_learns_to_match(rng):
  """Init, gradient and state are sound: a few steps fit four pairs."""
  model = clip.CLIP(CONFIG, rngs=nnx.Rngs(0))
  graphdef, params = nnx.split(model)
  tx = optax.adam(0.01)
  pixels = jnp.asarray(rng.normal(size=(4, 16, 16, 3)), jnp.float32)

  @jax.jit
  def step(params, opt_state):
    def loss(params):
      logits = nnx.merge(graphdef, params)(pixels, jnp.asarray(IDS))
      pairs = jax.nn.log_softmax(logits), jax.nn.log_softmax(logits.T)
      return -sum(jnp.trace(pair) for pair in pairs) / 8

    value, grads = jax.value_and_grad(loss)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return value, optax.apply_updates(params, updates), opt_state

  opt_state = jax.jit(tx.init)(params)
  losses = []
  for _ in range(40):
    value, params, opt_state = step(params, opt_state)
    losses.append(float(value))
  # The start is near chance, as no logit is large yet.
  assert 0.5 * np.log(4) < losses[0] < 2 * np.log(4)
  assert losses[-1] < 0.1 * losses[0]
