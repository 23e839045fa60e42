"""Evaluation on several devices is that on one."""

import jax
import numpy as np
import pytest

from experiments.data import on_devices
from experiments.data.images import ImageSet, Pixels
from experiments.methods.validator import Validator
from experiments.models import evaluation, probe
from experiments.training import loop
from gmixout_jax import parallel
from tests.experiments import tiny

SPLIT = tiny.split(per_class=5)  # 15 images
MESH = parallel.data_mesh(jax.devices()[:4])


def on_disk():
  return ImageSet.of(Pixels(SPLIT.images), SPLIT.labels, SPLIT.class_names)


@pytest.fixture(scope="module")
def model():
  return probe.fit_head(tiny.classifier(), tiny.source())


@pytest.mark.parametrize("images", [SPLIT, on_disk()], ids=["memory", "disk"])
def test_logits_are_those_of_one_device(model, images):
  alone = evaluation.logits(model, images, batch_size=2)
  done = []
  shared = evaluation.logits(
    model, images, batch_size=2, mesh=MESH, progress=done.append
  )
  np.testing.assert_array_equal(shared, alone)
  assert done == [8, 15]  # two on each of four devices


def test_evaluation_on_several_devices_equals_one(model):
  told = []
  targets = {"photo": tiny.split(per_class=3, seed=2)}
  alone = evaluation.evaluate(model, SPLIT, targets)
  shared = evaluation.evaluate(
    model, SPLIT, targets, mesh=MESH, progress=lambda *given: told.append(given)
  )
  for name, found in shared["details"].items():
    other = alone["details"][name]
    assert found["top1"] == other["top1"]
    # Other batches, other sums: not every bit of a confidence.
    assert found["brier"] == pytest.approx(other["brier"], rel=1e-5)
  assert (shared["id"], shared["ood"]) == (alone["id"], alone["ood"])
  assert told == [("id", 15, 15), ("ood/photo", 9, 9)]


@pytest.mark.parametrize("images", [SPLIT, on_disk()], ids=["memory", "disk"])
def test_validator_on_several_devices_equals_one(model, images):
  params = loop.weights_of(model)
  alone = Validator(model, images, batch_size=3)
  shared = Validator(model, images, batch_size=3, mesh=MESH)
  assert shared.accuracy(params) == alone.accuracy(params)
  assert shared.loss(params) == pytest.approx(alone.loss(params), rel=1e-6)


def test_batches_are_cut_up_and_filled_up():
  size = on_devices.batch_size(15, 2, MESH)
  (first, last) = on_devices.chunks(SPLIT.images, size, MESH)
  assert [shard.data.shape[0] for shard in first.addressable_shards] == [2] * 4
  np.testing.assert_array_equal(first, SPLIT.images[:8])
  np.testing.assert_array_equal(last[:7], SPLIT.images[8:])
  labels = np.concatenate(list(on_devices.labels(SPLIT.labels, size, MESH)))
  np.testing.assert_array_equal(labels, [*SPLIT.labels, -1])
  assert on_devices.batch_size(15, 256, MESH) == 16
  assert on_devices.batch_size(15, 256, None) == 15
