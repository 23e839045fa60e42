"""Tests recall against sorting, by hand, what is to be found."""

import numpy as np
import pytest

from experiments.metrics import recall


def by_sorting(similarity, owners, k):
  """The protocol, word for word: is a right one among the k most similar?"""
  images = [
    any(owners[j] == i for j in np.argsort(-row)[:k])
    for i, row in enumerate(similarity)
  ]
  captions = [
    owners[j] in np.argsort(-column)[:k]
    for j, column in enumerate(similarity.T)
  ]
  return np.mean(images), np.mean(captions)


@pytest.mark.parametrize("seed", range(3))
def test_recall_is_what_sorting_says(seed):
  rng = np.random.default_rng(seed)
  owners = rng.permutation(np.repeat(np.arange(40), rng.integers(1, 6, 40)))
  own = owners == np.arange(40)[:, None]
  similarity = rng.normal(size=own.shape) + 1.5 * own
  found = recall(similarity, owners, ks=(1, 3, 10))
  for k in (1, 3, 10):
    expected = by_sorting(similarity, owners, k)
    assert found["image_to_text"][str(k)] == expected[0]
    assert found["text_to_image"][str(k)] == expected[1]


def test_ranks_count_from_one():
  found = recall(np.eye(5), np.arange(5))
  assert found["image_to_text"]["median_rank"] == 1
  reverse = recall(-np.eye(5), np.arange(5))
  assert reverse["text_to_image"]["median_rank"] == 5


def test_constant_similarities_score_zero():
  found = recall(np.zeros((20, 100)), np.repeat(np.arange(20), 5))
  assert found["image_to_text"]["10"] == 0
  assert found["text_to_image"]["10"] == 0


def test_bad_values_are_quoted():
  with pytest.raises(
    ValueError, match="each of 3 images for 3 captions, got 2"
  ):
    recall(np.eye(3), np.array([0, 0, 1]))
  with pytest.raises(ValueError, match=r"at least 1, got \(0, 5\)"):
    recall(np.eye(3), np.arange(3), ks=(0, 5))
