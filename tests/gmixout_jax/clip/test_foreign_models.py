"""Tests models as other libraries save them, against what these compute."""

import jax.numpy as jnp
import numpy as np
import pytest

from gmixout_jax import clip

NAMES = (
  *("hf_clip_sharded", "hf_siglip", "hf_vit_classifier", "hf_dinov2"),
  *("open_clip", "timm_avg_pool", "timm_dinov2_like", "timm_layer_scale"),
  *("timm_no_class_token", "timm_no_qkv_bias", "timm_registers"),
)


def pixels_of(expected):
  return jnp.asarray(expected["pixel_values_nchw"].transpose(0, 2, 3, 1))


def outputs(model, expected):
  """Ours by the names that theirs have."""
  pixels = pixels_of(expected)
  if isinstance(model, clip.CLIP):
    ids = expected["input_ids"]
    return {
      "image_embeds": model.encode_image(pixels),
      "text_embeds": model.encode_text(ids),
      "logits_per_image": model(pixels, ids),
      "logit_scale": jnp.exp(model.logit_scale[...]),
    }
  return {
    "features": model.features(pixels),
    "logits": model(pixels),
    "pooler_output": model.features(pixels),
  }


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_its_own_library_does(name, shared):
  folder = shared / "golden/models" / name
  with np.load(folder / "expected.npz") as file:
    expected = dict(file)
  found = outputs(clip.load(folder), expected)
  compared = found.keys() & set(expected)
  assert compared
  for key in compared:
    theirs = expected[key]
    if key in ("image_embeds", "text_embeds"):
      theirs = theirs / np.linalg.norm(theirs, axis=-1, keepdims=True)
    np.testing.assert_allclose(found[key], theirs, atol=1e-4, rtol=1e-4)
