import jax
import numpy as np
import pytest
from flax import nnx
from sklearn.linear_model import LogisticRegression

from experiments.data.images import ImageSet, Pixels
from experiments.data.source import Source
from experiments.models import probe
from tests.experiments import tiny


def hard_source(classes=3):
  """Images so noisy that no head separates them."""
  source = tiny.source(classes=classes)
  rng = np.random.default_rng(5)
  for part in source:
    part.images[:] = rng.integers(0, 256, part.images.shape)
  return source


@pytest.mark.parametrize("classes", [2, 3])
def test_head_predicts_what_scikit_learn_does(classes):
  source = hard_source(classes)
  model = tiny.classifier(classes=classes)
  probed = probe.fit_head(model, source)

  train, validation = (probe.features(model, part) for part in source)
  mean, std = train.mean(axis=0), train.std(axis=0)
  train, validation = (train - mean) / std, (validation - mean) / std
  fits = [
    LogisticRegression(C=c, max_iter=10_000).fit(train, source.train.labels)
    for c in probe.GRID
  ]
  best = max(  # the first of equals: the strongest penalty
    fits, key=lambda fit: fit.score(validation, source.validation.labels)
  )
  # The C must have been chosen, and chosen on the validation images.
  scores = [f.score(validation, source.validation.labels) for f in fits]
  assert len(set(scores)) > 1
  by_training = [f.score(train, source.train.labels) for f in fits]
  assert best is not fits[int(np.argmax(by_training))]

  for inputs, part in zip((train, validation), source, strict=True):
    logits = probed(part.images)
    np.testing.assert_allclose(
      jax.nn.softmax(logits), best.predict_proba(inputs), atol=2e-3
    )
    np.testing.assert_array_equal(logits.argmax(-1), best.predict(inputs))


def test_probe_leaves_the_given_model_alone():
  model = tiny.classifier()
  probed = probe.fit_head(model, tiny.source())
  assert not np.any(model.head.kernel[...])
  assert np.any(probed.head.kernel[...])
  before, after = (
    nnx.to_pure_dict(nnx.state(m.backbone, nnx.Param)) for m in (model, probed)
  )
  jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_constant_feature_is_ignored():
  class Flat(nnx.Module):
    def features(self, pixels):
      means = pixels.mean(axis=(1, 2))  # [batch, 3]
      return means.at[:, 1].set(7.0)

  model = tiny.classifier()
  model.backbone = Flat()
  model.head = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
  source = tiny.source()
  probed = probe.fit_head(model, source)
  np.testing.assert_array_equal(probed.head.kernel[...][1], 0.0)
  logits = probed(source.validation.images)
  assert np.mean(logits.argmax(-1) == source.validation.labels) == 1.0


def test_a_class_without_training_images_keeps_its_place():
  source = tiny.source(classes=3)
  seen = np.flatnonzero(source.train.labels != 1)
  model = tiny.classifier()
  probed = probe.fit_head(
    model, Source(source.train.take(seen), source.validation)
  )
  assert probed.head.kernel.shape == (16, 3)
  predicted = np.asarray(probed(source.validation.images)).argmax(-1)
  for label in (0, 2):  # which are easy to tell apart
    assert (predicted[source.validation.labels == label] == label).all()


def test_some_of_each_class_are_drawn_and_all_of_rare_ones():
  labels = np.repeat([0, 1, 2], [2, 30, 50])
  pixels = Pixels(np.zeros((len(labels), 2, 2, 3), np.uint8))
  images = ImageSet.of(pixels, labels, "abc")
  some = probe.some_of_each(images, 22, seed=0)
  assert np.bincount(some.labels).tolist() == [2, 10, 10]
  assert len(set(some.rows)) == 22
  assert (np.diff(some.rows) > 0).all()
  other = probe.some_of_each(images, 22, seed=1)
  assert set(other.rows) != set(some.rows)
  assert len(probe.some_of_each(images, 1000, seed=0)) == 82
