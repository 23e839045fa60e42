import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.models.classifier import Classifier, ClipImageEncoder
from gmixout_jax import clip
from tests.experiments import tiny


def paths(model):
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  return {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
  }


@pytest.fixture(scope="module")
def vit():
  return tiny.vit()


def test_parameter_paths_are_the_documented_ones(vit):
  names = paths(Classifier.with_zero_head(vit, width=16, classes=3))
  assert {"head/kernel", "head/bias"} <= names
  assert "backbone/blocks/0/attention/query/kernel" in names
  assert all(name.startswith(("backbone/", "head/")) for name in names)


def test_pixels_are_normalised_on_the_way_in(vit):
  images = tiny.split(per_class=1).images
  mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
  model = Classifier.with_zero_head(
    vit, width=16, classes=3, mean=mean, std=std
  )
  pixels = (images.astype(np.float32) / 255 - np.array(mean)) / np.array(std)
  np.testing.assert_allclose(
    model.features(images),
    vit.features(jnp.asarray(pixels, jnp.float32)),
    atol=1e-5,
  )
  assert model(images).shape == (3, 3)


def test_clip_with_a_zero_shot_head_is_clip():
  tower = dict(width=8, depth=1, heads=2, mlp_width=16)
  config = clip.CLIPConfig(
    vision=clip.VisionConfig(image_size=16, patch_size=8, **tower),
    text=clip.TextConfig(vocab_size=10, eos_token_id=9, **tower),
    projection_dim=4,
  )
  model = tiny.filled(lambda: clip.CLIP(config, rngs=nnx.Rngs(0)))
  tokens = np.array([[8, 1, 9], [8, 2, 9], [8, 3, 9]])
  images = tiny.split(per_class=1).images

  def as_classifier(model):
    kernel = jnp.exp(model.logit_scale[...]) * model.encode_text(tokens).T
    return Classifier(
      ClipImageEncoder(model), kernel, mean=clip.CLIP_MEAN, std=clip.CLIP_STD
    )

  @nnx.jit  # op by op it takes several times as long
  def both(model):
    return as_classifier(model)(images), model(clip.preprocess(images), tokens)

  logits, expected = both(model)
  assert np.ptp(expected) > 1e-2
  np.testing.assert_allclose(logits, expected, rtol=1e-5)
  classifier = nnx.eval_shape(lambda: as_classifier(model))
  names = paths(classifier)
  assert "backbone/vision/blocks/0/mlp/fc1/kernel" in names
  assert not any("text" in name for name in names)


def test_a_clip_that_is_read_again_has_the_structure_of_the_first():
  """By which jax knows whether a step is compiled for it already."""
  structure = lambda model: nnx.split(model)[0]
  first, again, other = tiny.words(), tiny.words(), tiny.words()
  scale = other.prompts.model.logit_scale
  scale[...] = scale[...] + 1
  assert structure(first) == structure(again)
  assert hash(structure(first)) == hash(structure(again))
  assert structure(first) != structure(other)


def test_tree_mode_gives_the_same_logits():
  images = tiny.split(per_class=1).images
  expected = tiny.classifier().features(images)
  with nnx.set_graph_mode(False):
    graphdef, params, rest = nnx.split(tiny.classifier(), nnx.Param, ...)
    model = nnx.merge(graphdef, nnx.to_pure_dict(params), rest)
    np.testing.assert_array_equal(model.features(images), expected)


def test_a_head_of_another_width_is_refused():
  model = Classifier.with_zero_head(tiny.Mlp(), width=5, classes=3)
  with pytest.raises(TypeError, match="dot_general"):
    model(tiny.split(per_class=1).images)
