import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate
from tests.experiments import tiny


def test_map_batches_pads_and_cuts():
  images = np.arange(7 * 2 * 2 * 3, dtype=np.uint8).reshape(7, 2, 2, 3)
  seen = []

  def apply(batch):
    seen.append(batch.shape[0])
    return jnp.asarray(batch).astype(jnp.int32).sum(axis=(1, 2, 3))

  out = evaluate.map_batches(apply, images, 3)
  np.testing.assert_array_equal(out, images.sum(axis=(1, 2, 3), dtype=np.int32))
  assert seen == [3, 3, 3]
  seen.clear()
  evaluate.map_batches(apply, images, 256)
  assert seen == [7]  # a small domain is not padded to the batch size


def test_accuracy_counts_no_padding():
  split = tiny.split(per_class=5)
  wrong = split.labels.copy()
  wrong[:3] = 2
  model = tiny.classifier()
  # All logits of a head of zeros are equal, and argmax takes the first.
  assert evaluate.accuracy(model, split, batch_size=4) == pytest.approx(5 / 15)
  split = dataclasses.replace(split, labels=wrong)
  assert evaluate.accuracy(model, split, batch_size=4) == pytest.approx(2 / 15)


def test_report_weighs_domains_equally():
  right = tiny.split(per_class=4)
  zeros = dataclasses.replace(right, labels=np.zeros_like(right.labels))
  large = tiny.split(per_class=40)
  report = evaluate.evaluate(
    tiny.classifier(), zeros, {"small": right, "large": large, "easy": zeros}
  )
  assert report["id"] == 1.0
  assert report["ood"] == {
    "small": pytest.approx(1 / 3),
    "large": pytest.approx(1 / 3),
    "easy": 1.0,
  }
  assert report["mean_ood"] == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)
  assert report["worst_ood"] == pytest.approx(1 / 3)
