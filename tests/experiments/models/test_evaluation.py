import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import metrics
from experiments.data import domainbed
from experiments.data.decode import View
from experiments.models import evaluation
from tests.experiments import tiny


def test_map_batches_pads_and_cuts():
  images = np.arange(7 * 2 * 2 * 3, dtype=np.uint8).reshape(7, 2, 2, 3)
  seen = []

  def apply(batch):
    seen.append(batch.shape[0])
    return jnp.asarray(batch).astype(jnp.int32).sum(axis=(1, 2, 3))

  out = evaluation.map_batches(apply, images, 3)
  np.testing.assert_array_equal(out, images.sum(axis=(1, 2, 3), dtype=np.int32))
  assert seen == [3, 3, 3]
  seen.clear()
  evaluation.map_batches(apply, images, 256)
  assert seen == [7]  # a small domain is not padded to the batch size


def test_accuracy_counts_no_padding():
  split = tiny.split(per_class=5)
  wrong = split.labels.copy()
  wrong[:3] = 2
  model = tiny.classifier()
  # All logits of a head of zeros are equal, and argmax takes the first.
  assert evaluation.accuracy(model, split, batch_size=4) == pytest.approx(
    5 / 15
  )
  split = dataclasses.replace(split, labels=wrong)
  assert evaluation.accuracy(model, split, batch_size=4) == pytest.approx(
    2 / 15
  )


def test_report_weighs_domains_equally():
  right = tiny.split(per_class=4)
  zeros = dataclasses.replace(right, labels=np.zeros_like(right.labels))
  large = tiny.split(per_class=40)
  report = evaluation.evaluate(
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


def test_a_set_on_disk_is_evaluated_like_one_in_memory(tmp_path):
  root = tiny.domainbed(tmp_path / "data", per_class=3)
  images = domainbed.open_images(root, view=View(tiny.SIZE)).domain("art")
  model = tiny.filled(tiny.classifier)
  lazy = evaluation.logits(model, images, batch_size=4)
  eager = evaluation.logits(model, images.in_memory(), batch_size=4)
  np.testing.assert_array_equal(lazy, eager)
  assert np.ptp(lazy) > 0.1


def test_logits_are_those_of_the_sets_own_classes():
  images = tiny.of_splits({"a": tiny.split(per_class=2, classes=2)})
  model = tiny.filled(lambda: tiny.classifier(classes=5))
  every = evaluation.map_batches(
    lambda batch: model(jnp.asarray(batch)), images.in_memory().images, 4
  )
  subset = dataclasses.replace(images, outputs=((3,), (0, 4)))
  found = evaluation.logits(model, subset, batch_size=4)
  expected = np.stack([every[:, 3], every[:, [0, 4]].max(1)], axis=1)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match="5 outputs and the data 2"):
    evaluation.logits(model, images, batch_size=4)


def test_details_hold_what_a_report_needs():
  logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
  labels = np.array([0, 1, 1])
  found = evaluation.measure(logits, labels)
  assert found["top1"] == pytest.approx(2 / 3)
  assert found["mean_per_class"] == pytest.approx((1 + 1 / 2) / 2)
  assert found["macro_f1"] == pytest.approx(2 / 3)
  assert sum(found["reliability"]["count"]) == 3
  probabilities = metrics.softmax(logits)
  assert found["ece"] == metrics.reliability(probabilities, labels).ece
  assert found["brier"] == metrics.brier(probabilities, labels)
  json.dumps(found, allow_nan=False)


def test_the_report_has_details_of_every_set():
  split = tiny.split(per_class=2)
  report = evaluation.evaluate(tiny.classifier(), split, {"far": split})
  assert set(report["details"]) == {"id", "ood/far"}
  assert report["details"]["ood/far"]["top1"] == report["ood"]["far"]
  # All logits are equal: the model gives 1/3 to every class.
  assert report["details"]["id"]["brier"] == pytest.approx(2 / 3)
  assert report["details"]["id"]["ece"] == pytest.approx(0, abs=1e-6)


def test_classes_in_another_order_are_refused():
  split = tiny.split(per_class=2)
  turned = dataclasses.replace(split, class_names=split.class_names[::-1])
  with pytest.raises(ValueError, match="'far' calls class 0 'class 2', the"):
    evaluation.evaluate(tiny.classifier(), split, {"far": turned})
  fewer = tiny.split(per_class=2, classes=2)
  with pytest.raises(ValueError, match="'far' has 2 classes, the source 3"):
    evaluation.evaluate(tiny.classifier(), split, {"far": fewer})
  # A set that says which outputs its classes are has classes of its own.
  mapped = dataclasses.replace(
    tiny.of_splits({"far": fewer}), outputs=((2,), (0, 1))
  )
  report = evaluation.evaluate(
    tiny.classifier(),
    split,
    {"far": mapped},
    train_counts=np.array([500, 50, 5]),
  )
  assert "groups" not in report["details"]["ood/far"]
  # All logits are equal, so the first class is called every time.
  assert report["details"]["id"]["groups"] == {
    "many": 1.0,
    "medium": 0.0,
    "few": 0.0,
  }


def test_a_set_that_does_not_fit_the_head_is_named(tmp_path):
  root = tiny.domainbed(tmp_path / "data", per_class=1)
  images = domainbed.open_images(root, view=View(tiny.SIZE))
  with pytest.raises(
    ValueError, match=rf"{images.name(0)}.*'cat'.*5 outputs and the data 3"
  ):
    evaluation.logits(tiny.classifier(classes=5), images)


def test_id_accuracy_by_domain():
  right, wrong = tiny.split(per_class=4), tiny.split(per_class=8)
  zeros = dataclasses.replace(right, labels=np.zeros_like(right.labels))
  home = tiny.of_splits({"small": zeros, "none": wrong.take(np.arange(0)),
                    "large": wrong})  # fmt: skip
  report = evaluation.evaluate(
    tiny.classifier(), home, {"x": right}, by_domain=True
  )
  assert report["id_by_domain"] == {"small": 1.0, "large": pytest.approx(1 / 3)}
  assert report["mean_id"] == pytest.approx(2 / 3)
  assert report["id"] == pytest.approx(20 / 36)


def test_evaluation_without_ood_sets():
  report = evaluation.evaluate(tiny.classifier(), tiny.split(), {})
  assert report["ood"] == {}
  assert not {"mean_ood", "worst_ood", "mean_id"} & set(report)
