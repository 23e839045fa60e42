"""Tests `gmixout_jax/clip/text.py`."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gmixout_jax import clip
from gmixout_jax.clip import text

pytestmark = pytest.mark.slow

CONFIG = clip.TextConfig(
  vocab_size=20,
  context_length=7,
  eos_token_id=12,
  width=12,
  depth=1,
  heads=3,
  mlp_width=20,
)


@pytest.fixture(scope="module")
def model(make):
  return make(lambda rngs: clip.TextTransformer(CONFIG, rngs=rngs))


# By hand: the first 12 and the largest id (the first of equals) are marked.
#                  v first 12           v largest
IDS = np.array(
  [
    [1, 5, 12, 12, 12, 12, 12],  # both at 2
    [1, 12, 3, 19, 12, 0, 0],  # first 12 at 1, largest at 3
    [1, 4, 5, 6, 7, 8, 12],  # both at the very end
    [12, 4, 5, 6, 7, 8, 2],  # both at the start, and a 2 is no end
  ]
)
FIRST, LARGEST = [2, 1, 6, 0], [2, 3, 6, 0]


@pytest.mark.parametrize(("eos", "expected"), [(12, FIRST), (2, LARGEST)])
def test_both_conventions_find_the_end(eos, expected):
  assert text.end_of_text(jnp.asarray(IDS), eos).tolist() == expected


@pytest.mark.parametrize(("eos", "expected"), [(12, FIRST), (2, LARGEST)])
def test_features_are_the_normed_token_at_the_end(make, eos, expected):
  config = dataclasses.replace(CONFIG, eos_token_id=eos)
  model = make(lambda rngs: clip.TextTransformer(config, rngs=rngs))
  tokens = np.asarray(model.tokens(IDS), np.float64)
  pooled = tokens[np.arange(4), expected]
  pooled = pooled - pooled.mean(-1, keepdims=True)
  pooled = pooled / np.sqrt((pooled**2).mean(-1, keepdims=True) + config.eps)
  pooled = pooled * np.asarray(model.norm.scale) + np.asarray(model.norm.bias)
  np.testing.assert_allclose(model.features(IDS), pooled, atol=1e-4)


def test_what_follows_the_end_changes_nothing(model):
  short = np.array([[1, 5, 12]])
  padded = np.array([[1, 5, 12, 0, 3, 0, 0]])
  closed = np.array([[1, 5, 12, 12, 12, 12, 12]])
  features = nnx.jit(clip.TextTransformer.features)
  expected = model.features(short)
  for ids in (padded, closed):
    np.testing.assert_allclose(
      features(model, jnp.asarray(ids)), expected, atol=1e-6
    )
  earlier = model.features(np.array([[1, 6, 12]]))
  assert np.abs(earlier - expected).max() > 1e-3


@pytest.mark.parametrize(
  ("ids", "message"),
  [
    (np.zeros((1, 8), int), "[batch, at most 7], got [1, 8]"),
    (np.zeros(7, int), "[batch, at most 7], got [7]"),
    (np.zeros((1, 7)), "must be integers, got float64"),
    ([[1, 20, 12]], "must lie in [0, 20), got 20"),
    ([[1, -1, 12]], "must lie in [0, 20), got -1"),
    ([[1, 12], [1, 3]], "eos_token_id = 12; text 1 does not"),
  ],
)
def test_wrong_ids_are_refused(model, ids, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    model.features(ids)
