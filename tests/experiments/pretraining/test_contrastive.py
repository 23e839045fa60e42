"""Tests the loss and the loop that CLIPs are pretrained with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.pretraining import contrastive
from experiments.training.run_checkpoints import Stopped
from gmixout_jax import clip
from gmixout_jax.checkpoint import Checkpoints
from tests.combinations import EXHAUSTIVE, tried
from tests.experiments import tiny

STEPS = 6


def test_the_contrastive_loss_is_the_two_cross_entropies():
  logits = np.array([[2.0, -1.0], [0.5, 3.0]], np.float32)
  images = -np.diag(jax.nn.log_softmax(logits, axis=1))
  captions = -np.diag(jax.nn.log_softmax(logits, axis=0))
  distinct = np.array([[1, 2], [1, 3]])
  np.testing.assert_allclose(
    contrastive.contrastive_loss(logits, distinct),
    (images.mean() + captions.mean()) / 2,
    rtol=1e-6,
  )


def test_equal_captions_are_equally_right():
  equal = np.array([[1, 2], [1, 2], [1, 3]])
  # Images 0 and 1 cannot be told apart by their captions, and need not be.
  torn = np.array([[9.0, 9, -9], [9, 9, -9], [-9, -9, 9]], np.float32)
  loss = float(contrastive.contrastive_loss(torn, equal))
  assert loss == pytest.approx(2 / 3 * np.log(2), abs=1e-4)


@pytest.fixture(scope="module")
def model():
  tower = dict(width=8, depth=1, heads=2, mlp_width=12)
  config = clip.CLIPConfig(
    vision=clip.VisionConfig.vit(
      image_size=8, patch_size=4, num_classes=0, **tower
    ),
    text=clip.TextConfig(
      vocab_size=20, context_length=4, eos_token_id=19, **tower
    ),
    projection_dim=6,
  )
  return tiny.filled(lambda: clip.CLIP(config, rngs=nnx.Rngs(0)))


def features(start):
  """Batches of features, each a function of its step."""
  for step in range(start, STEPS):
    rng = np.random.default_rng(step)
    tokens = np.concatenate(
      [rng.integers(0, 19, (5, 3)), np.full((5, 1), 19)], axis=1
    )
    image = rng.normal(size=(5, 8)).astype(np.float32)
    yield {"image": image, "tokens": tokens.astype(np.int32)}


def pixels(start):
  for step, batch in enumerate(features(start), start):
    image = np.random.default_rng(step).integers(0, 256, (5, 8, 8, 3))
    yield {**batch, "image": image.astype(np.uint8)}


def fit(model, *, locked=True, **settings):
  embed = contrastive.embed_pixels(clip.HALF, clip.HALF)
  return contrastive.fit(
    model,
    features if locked else pixels,
    contrastive.make_optimizer(1e-2, steps=STEPS, warmup=2, decay=0.1),
    steps=STEPS,
    embed=contrastive.embed_features if locked else embed,
    locked=locked,
    **settings,
  )


def leaves(model):
  return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
  "locked", tried([True, False], lambda locked: not locked)
)
def test_the_image_tower_is_updated_unless_locked(model, locked):
  before = leaves(model)
  trained, losses = fit(model, locked=locked)
  after = leaves(trained)
  assert len(losses) == STEPS
  assert np.isfinite(losses).all()
  jax.tree.map(np.testing.assert_array_equal, leaves(model), before)
  for part, moves in (
    ("vision", not locked),
    ("vision_projection", True),
    ("text", True),
    ("text_projection", True),
    ("logit_scale", True),
  ):
    moved = jax.tree.leaves(
      jax.tree.map(
        lambda a, b: not np.array_equal(a, b), before[part], after[part]
      )
    )
    assert all(moved) if moves else not any(moved), part


def test_features_are_embedded_as_their_pixels_are(model):
  images = next(iter(pixels(0)))["image"]
  preprocessed = clip.preprocess(images, mean=clip.HALF, std=clip.HALF)
  np.testing.assert_allclose(
    contrastive.embed_features(model, model.vision.features(preprocessed)),
    model.encode_image(preprocessed),
    atol=1e-6,
  )


@EXHAUSTIVE
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(model, tmp_path):
  whole, losses = fit(model)
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(Stopped, match=r"after 4 of 6 steps"),
  ):
    fit(model, checkpoints=checkpoints, stop=lambda step: step == 4)
  with Checkpoints(tmp_path) as checkpoints:
    resumed, again = fit(model, checkpoints=checkpoints)
    checkpoints.wait()
    assert checkpoints.steps == [4, 6]
  np.testing.assert_array_equal(again, losses)
  jax.tree.map(np.testing.assert_array_equal, leaves(resumed), leaves(whole))


def test_a_loss_that_is_not_finite_stops_the_run(model):
  wild = nnx.clone(model)
  wild.logit_scale[...] = jnp.float32(np.nan)
  with pytest.raises(FloatingPointError, match="the loss of step 0 is nan"):
    fit(wild)
  with pytest.raises(ValueError, match="at least 1 step, got 0"):
    fit(model, save_every=0)
