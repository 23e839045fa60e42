"""Tests metrics of predictions against scikit-learn and hand-made cases."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from experiments import metrics


def random_case(rng, n=400, classes=6):
  labels = rng.integers(0, classes - 1, n)  # the last class has no image
  logits = 2 * rng.standard_normal((n, classes))
  logits[np.arange(n), labels] += 1.5
  return logits, labels


def test_selection_comes_before_the_argmax():
  logits = np.array([[9.0, 1.0, 2.0, 0.0], [0.0, 5.0, 4.0, 6.0]])
  chosen = metrics.select(logits, [[1], [2]])
  np.testing.assert_array_equal(chosen, [[1, 2], [5, 4]])
  # Over all outputs, both would be wrong: 0 and 3 are no classes of the set.
  assert metrics.top1(chosen.argmax(1), np.array([1, 0])) == 1.0


def test_the_highest_of_a_classs_outputs_speaks_for_it():
  logits = np.array([[1.0, 4.0, 2.0, 3.0]])
  grouped = metrics.select(logits, [[0, 3], [2], [1, 2]])
  np.testing.assert_array_equal(grouped, [[3, 2, 4]])
  assert metrics.select(logits, None, classes=4) is logits


def test_a_head_that_does_not_match_is_refused():
  logits = np.zeros((2, 4))
  with pytest.raises(ValueError, match="4 outputs and the data 7"):
    metrics.select(logits, None, classes=7)
  with pytest.raises(ValueError, match="class 1 is output 4"):
    metrics.select(logits, [[0], [4]])
  with pytest.raises(ValueError, match="class 0 has no output"):
    metrics.select(logits, [[], [1]])
  with pytest.raises(ValueError, match="lists 1 of 2"):
    metrics.select(logits, [[0]], classes=2)


def test_accuracies_are_scikit_learns(rng):
  logits, labels = random_case(rng)
  predictions = logits.argmax(1)
  assert metrics.top1(predictions, labels) == pytest.approx(
    np.mean(predictions == labels)
  )
  recall = sklearn_metrics.recall_score(
    labels, predictions, labels=range(5), average=None
  )
  mine = metrics.per_class(predictions, labels, classes=6)
  np.testing.assert_allclose(mine[:5], recall)
  assert np.isnan(mine[5])
  assert metrics.mean_per_class(
    predictions, labels, classes=6
  ) == pytest.approx(np.mean(recall))


def test_macro_f1_by_hand_over_the_classes_that_are_there():
  labels = np.array([0, 0, 0, 1, 1, 3])
  predictions = np.array([0, 0, 2, 1, 0, 1])
  # F1 = 2 TP / (2 TP + FP + FN): 4/6, 2/4, 0; class 2 has no image.
  assert metrics.macro_f1(predictions, labels) == pytest.approx(
    (4 / 6 + 2 / 4 + 0) / 3
  )


def test_macro_f1_is_scikit_learns(rng):
  for classes in (2, 5, 40):
    labels, predictions = rng.integers(0, classes, (2, 60))
    wanted = sklearn_metrics.f1_score(
      labels, predictions, labels=np.unique(labels), average="macro"
    )
    found = metrics.macro_f1(predictions, labels)
    assert found == pytest.approx(wanted, abs=1e-15)


def test_groups_have_the_edges_of_imagenet_lt():
  groups = metrics.groups_by_count(np.array([1280, 101, 100, 20, 19, 5]))
  assert groups["many"].tolist() == [True, True, False, False, False, False]
  assert groups["medium"].tolist() == [False, False, True, True, False, False]
  assert groups["few"].tolist() == [False, False, False, False, True, True]


def test_groups_are_means_over_their_classes():
  labels = np.array([0] * 8 + [1] * 2 + [2, 3])
  predictions = labels.copy()
  predictions[:4] = 1  # half of class 0
  predictions[10] = 0  # all of class 2
  counts = np.array([1000, 101, 20, 19, 1])  # class 4 has no test image
  # Over classes, not over images: (1/2 + 1) / 2, where 6 of 10 are right.
  assert metrics.by_group(predictions, labels, counts) == {
    "many": 0.75,
    "medium": 0.0,
    "few": 1.0,
  }
  assert set(metrics.by_group(labels, labels, np.full(5, 7))) == {"few"}


def test_ece_by_hand():
  # Confidences 0.9, 0.9, 0.6, of which the second is wrong.
  probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
  labels = np.array([0, 1, 1])
  # Bins of 1/15: 0.9 in the 14th, 0.6 (= 9/15) in the 9th, closed above.
  found = metrics.reliability(probabilities, labels)
  assert found.count[13] == 2
  assert found.count[8] == 1
  assert found.ece == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.4)
  assert metrics.reliability(
    probabilities, labels, bins=1
  ).ece == pytest.approx(abs(2 / 3 - 0.8))


def test_ece_is_its_definition(rng):
  logits, labels = random_case(rng)
  probabilities = metrics.softmax(logits)
  np.testing.assert_allclose(
    probabilities, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  )
  confidence = probabilities.max(1)
  right = probabilities.argmax(1) == labels
  total = 0.0
  for b in range(15):
    inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
    if inside.any():
      gap = right[inside].mean() - confidence[inside].mean()
      total += inside.mean() * abs(gap)
  assert metrics.reliability(probabilities, labels).ece == pytest.approx(total)


def test_a_calibrated_model_has_hardly_any_ece(rng):
  probabilities = rng.dirichlet(np.ones(4), 20_000)
  labels = np.array([rng.choice(4, p=p) for p in probabilities])
  assert metrics.reliability(probabilities, labels).ece < 0.015


def test_brier_is_its_definition(rng):
  logits, labels = random_case(rng)
  probabilities = metrics.softmax(logits)
  expected = np.mean(np.sum((probabilities - np.eye(6)[labels]) ** 2, axis=1))
  assert metrics.brier(probabilities, labels) == pytest.approx(expected)
  two = metrics.softmax(logits[:, :2])
  halves = sklearn_metrics.brier_score_loss(labels % 2, two[:, 1])
  assert metrics.brier(two, labels % 2) == pytest.approx(2 * halves)


@pytest.mark.parametrize(
  ("probabilities", "labels", "message"),
  [
    ([[2.0, -1.0]], [0], "were these logits"),
    ([[0.5, 0.4]], [0], "were these logits"),
    ([[np.nan, 0.4]], [0], "were these logits"),
    ([[0.5, 0.5]], [2], "0 to 1, got 2"),
    ([[0.5, 0.5]], [0, 1], "shapes"),
    (np.zeros((0, 2)), np.zeros(0, int), "no labels"),
  ],
)
def test_what_is_no_probability_is_refused(probabilities, labels, message):
  with pytest.raises(ValueError, match=message):
    metrics.brier(np.array(probabilities), np.array(labels))


def test_lengths_and_ranges_are_checked():
  with pytest.raises(ValueError, match="shapes"):
    metrics.top1(np.zeros(3, int), np.zeros(4, int))
  with pytest.raises(ValueError, match="0 to 1, got 0 to 2"):
    metrics.per_class(np.zeros(2, int), np.array([0, 2]), classes=2)
  with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
    metrics.reliability(np.array([[1.0]]), np.array([0]), bins=0)


def test_domains_count_alike():
  found = metrics.out_of_distribution({"a": 0.5, "b": 0.2, "c": 0.8})
  assert found == {"mean_ood": pytest.approx(0.5), "worst_ood": 0.2}
  with pytest.raises(ValueError, match="no out-of-distribution"):
    metrics.out_of_distribution({})


def test_mean_corruption_accuracy_is_a_plain_mean_of_a_full_grid():
  grid = {"fog/1": 0.9, "fog/2": 0.7, "snow/1": 0.5, "snow/2": 0.3}
  assert metrics.mean_corruption_accuracy(grid) == pytest.approx(0.6)
  del grid["snow/2"]
  with pytest.raises(ValueError, match="snow lacks severity 2"):
    metrics.mean_corruption_accuracy(grid)
  with pytest.raises(ValueError, match="got 'fog'"):
    metrics.mean_corruption_accuracy({"fog": 0.5})
  with pytest.raises(ValueError, match="no corruptions"):
    metrics.mean_corruption_accuracy({})


def test_relative_robustness_is_a_difference():
  assert metrics.relative_robustness(0.5, 0.6) == pytest.approx(-0.1)
