"""Label smoothing, mixup and CutMix against their definitions in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from experiments.tasks.recipe import Recipe
from experiments.training import mixing
from tests.combinations import tried
from tests.experiments import tiny

CLASSES = 5
KEYS = jax.random.split(jax.random.key(7), 400)


def batch(size=6):
  rng = np.random.default_rng(0)
  return {
    "image": rng.integers(0, 256, (size, 8, 12, 3)).astype(np.uint8),
    "label": rng.integers(0, CLASSES, size).astype(np.int32),
  }


def one_hot(labels, smoothing=0.0):
  hot = np.eye(CLASSES, dtype=np.float64)[labels]
  return (1 - smoothing) * hot + smoothing / CLASSES


@functools.partial(jax.jit, static_argnums=0)
def soften(recipe, given, key):
  return mixing.soften(mixing.with_partners(given), recipe, key, CLASSES)


def softened(recipe, key):
  return jax.tree.map(np.asarray, soften(recipe, batch(), key))


def draws(recipe, size=(32, 32)):
  return jax.tree.map(
    np.asarray,
    jax.jit(jax.vmap(lambda key: mixing.draw(key, recipe, size)))(KEYS),
  )


def test_label_smoothing_spreads_a_share():
  found = softened(Recipe(label_smoothing=0.1), KEYS[0])
  expected = one_hot(batch()["label"], 0.1)
  np.testing.assert_allclose(found["label"], expected, atol=1e-7)
  np.testing.assert_array_equal(found["image"], batch()["image"])


@pytest.mark.parametrize("smoothing", tried([0.0, 0.2], bool))
def test_mixup_mixes_pixels_and_labels_alike(smoothing):
  recipe = Recipe(mixup=0.8, label_smoothing=smoothing)
  given = batch()
  found = softened(recipe, KEYS[0])
  _, share = mixing.draw(KEYS[0], recipe, (8, 12))
  weight = 1 - np.float64(share)
  pixels = given["image"].astype(np.float64) / 255
  labels = one_hot(given["label"], smoothing)
  np.testing.assert_allclose(
    found["image"],
    weight * pixels + (1 - weight) * pixels[::-1],
    atol=1e-6,
  )
  np.testing.assert_allclose(
    found["label"], weight * labels + (1 - weight) * labels[::-1], atol=1e-6
  )
  np.testing.assert_allclose(found["label"].sum(axis=1), 1, atol=1e-6)
  assert 0 < weight < 1


def test_cutmix_lays_a_box_of_the_partner_over_an_image():
  recipe = Recipe(cutmix=1.0)
  given = batch()
  pixels = given["image"].astype(np.float64) / 255
  seen = 0
  for key in KEYS[:8]:
    found = softened(recipe, key)
    own = np.isclose(found["image"], pixels, atol=1e-7).all(axis=(0, 3))
    partner = np.isclose(found["image"], pixels[::-1], atol=1e-7).all((0, 3))
    assert (own ^ partner).all()  # no pixel of both, and none of neither
    rows, columns = partner.any(axis=1), partner.any(axis=0)
    np.testing.assert_array_equal(partner, np.outer(rows, columns))
    for line in (rows, columns):  # in one piece
      assert np.count_nonzero(np.diff(np.r_[0, line.astype(int), 0])) in (0, 2)
    share = partner.mean()
    labels = one_hot(given["label"])
    np.testing.assert_allclose(
      found["label"], (1 - share) * labels + share * labels[::-1], atol=1e-6
    )
    seen += 0 < share < 1
  assert seen > 4


@pytest.mark.parametrize(
  "alpha", tried([0.2, 1.0, 3.0], lambda alpha: alpha != 1)
)
def test_lambda_has_the_beta_distribution(alpha):
  _, share = draws(Recipe(mixup=alpha))
  law = scipy.stats.beta(alpha, alpha)
  assert scipy.stats.kstest(1 - share, law.cdf).pvalue > 1e-3


def test_a_box_that_fits_has_the_share_that_was_drawn():
  size = (40, 60)
  share = jnp.float32(0.25)
  boxes = np.asarray(
    jax.vmap(lambda key: mixing.draw_box(key, share, size))(KEYS)
  )
  areas = boxes.mean(axis=(1, 2))
  assert areas.max() == 0.25  # half of each side
  centres = boxes[areas == 0.25]
  assert 0.1 < len(centres) / len(boxes) < 0.5  # most centres are near a side
  # Every pixel but those at the sides is covered as often as any other.
  np.testing.assert_allclose(boxes.mean(axis=0)[20, 30], 0.25, atol=0.08)


def test_of_both_each_step_does_one_with_even_chances():
  pixels, share = draws(Recipe(mixup=1.0, cutmix=1.0))
  boxes = np.isin(pixels, (0, 1)).all(axis=(1, 2))
  assert scipy.stats.binomtest(int(boxes.sum()), len(KEYS)).pvalue > 1e-3
  np.testing.assert_allclose(pixels.mean(axis=(1, 2)), share, atol=1e-6)


def test_who_meets_whom_is_the_same_for_any_number_of_processes():
  """Each reads every n-th image, and the whole is put together in turn."""
  order = np.arange(12)
  for processes in (1, 2, 3, 4):
    positions = np.concatenate([order[p::processes] for p in range(processes)])
    partners = np.asarray(
      mixing.with_partners(
        {"image": jnp.asarray(positions), "label": jnp.asarray(positions)}
      )["partner_image"]
    )
    np.testing.assert_array_equal(partners, 11 - positions)


def test_the_logits_of_mixed_images_are_those_of_floats():
  model = tiny.classifier()
  model.head.kernel[...] = jnp.ones((16, 3))
  images = tiny.split().images[:4]
  np.testing.assert_allclose(
    model(jnp.asarray(images)),
    model(mixing.as_floats(jnp.asarray(images))),
    rtol=1e-5,
  )
