"""Tests `gmixout_jax/clip/zero_shot.py`."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gmixout_jax import clip

pytestmark = pytest.mark.slow

TOWER = dict(width=12, depth=1, heads=3, mlp_width=20)
CONFIG = clip.CLIPConfig(
  vision=clip.VisionConfig(image_size=16, patch_size=8, **TOWER),
  text=clip.TextConfig(
    vocab_size=128, context_length=12, eos_token_id=127, **TOWER
  ),
  projection_dim=6,
)


def tokenizer(texts):
  """One token per letter."""
  rows = [[*text.encode()[:11], 127] for text in texts]
  return np.array([row + [127] * (12 - len(row)) for row in rows])


@pytest.fixture(scope="module")
def model(make):
  return make(lambda rngs: clip.CLIP(CONFIG, rngs=rngs))


def test_columns_are_normed_means_of_unit_embeddings(model):
  names, templates = ["dog", "ox", "{cat}"], ["a {}.", "{} {y}"]
  # Six prompts: the second batch is not full.
  head = clip.zero_shot_head(model, tokenizer, names, templates, batch_size=4)
  prompts = [["a dog.", "dog {y}"], ["a ox.", "ox {y}"]]
  prompts.append(["a {cat}.", "{cat} {y}"])
  encode = nnx.jit(clip.CLIP.encode_text)
  for column, texts in zip(np.asarray(head).T, prompts, strict=True):
    units = np.float64(encode(model, jnp.asarray(tokenizer(texts))))
    mean = units.mean(axis=0)
    np.testing.assert_allclose(column, mean / np.linalg.norm(mean), atol=1e-5)


def test_scaled_head_gives_the_model_s_logits(model, rng):
  pixels = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
  names = ["dog", "ox"]
  head = clip.zero_shot_head(model, tokenizer, names, ["a {}"], scaled=True)
  ids = tokenizer(["a dog", "a ox"])
  image, expected = nnx.jit(lambda m: (m.encode_image(pixels), m(pixels, ids)))(
    model
  )
  np.testing.assert_allclose(image @ head, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ("names", "templates", "message"),
  [
    ([], ["{}"], r"class_names must be a list of strings, got \[\]"),
    (["dog"], [], r"templates must be a list of strings, got \[\]"),
    ("dog", ["{}"], r"class_names must be a list of strings, got 'dog'"),
    (["dog"], ["{}", "a {0}"], r"must hold '\{\}', got 'a \{0\}'"),
  ],
)
def test_wrong_words_are_refused(model, names, templates, message):
  with pytest.raises(ValueError, match=message):
    clip.zero_shot_head(model, tokenizer, names, templates)


def test_ready_made_templates_are_templates():
  for template in (*clip.PHOTO_TEMPLATES, *clip.STYLE_TEMPLATES):
    assert template.count("{}") == 1


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    (lambda ids: np.where(ids == 127, 5, ids), "eos_token_id = 127; text 0"),
    (lambda ids: ids + 1, r"must lie in \[0, 128\), got 128"),
    (lambda ids: ids[:, :, None], "must have shape"),
    (lambda ids: ids.astype(float), "must be integers, got float64"),
  ],
)
def test_tokens_of_another_model_are_refused(model, wrong, message):
  with pytest.raises(ValueError, match=message):
    clip.zero_shot_head(model, lambda t: wrong(tokenizer(t)), ["dog"])
