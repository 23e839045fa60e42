"""Tests sets that are joined as domains."""

import dataclasses
import pickle

import numpy as np
import pytest

from experiments.data import domainbed, folds, joined
from experiments.data.decode import View
from tests.experiments import tiny


@pytest.fixture
def opened(tmp_path):
  root = tiny.domainbed(tmp_path / "data", per_class=2)
  return domainbed.open_images(root, view=View(8))


def test_domains_that_are_joined_again_are_the_whole(opened):
  whole = joined.join(opened.by_domain())
  assert whole.domain_names == opened.domain_names
  np.testing.assert_array_equal(whole.labels, opened.labels)
  np.testing.assert_array_equal(whole.domains, opened.domains)
  again = pickle.loads(pickle.dumps(whole))
  for index in (0, 7, 8, 23):
    assert again.name(index) == opened.name(index)
    np.testing.assert_array_equal(again[index]["image"], opened[index]["image"])


def test_parts_and_orders_are_kept(opened):
  parts = {
    "late": opened.domain("sketch").take(np.array([5, 0])),
    "none": opened.domain("photo").take(np.array([], int)),
    "early": opened.domain("art").take(np.array([3])),
  }
  whole = joined.join(parts)
  assert whole.counts().sum(axis=1).tolist() == [2, 0, 1]
  expected = [parts["late"].name(0), parts["late"].name(1)]
  expected.append(parts["early"].name(0))
  assert [whole.name(i) for i in range(3)] == expected
  assert whole[2]["domain"] == 2
  fold = folds.leave_out(whole, "early", seed=0)
  assert fold.target.name(0) == parts["early"].name(0)


def test_classes_must_be_the_same(opened):
  other = dataclasses.replace(opened, class_names=("dog", "cat", "owl"))
  with pytest.raises(
    ValueError, match=r"'b' has other classes than 'a': \(dog"
  ):
    joined.join({"a": opened, "b": other})
  with pytest.raises(ValueError, match="no sets"):
    joined.join({})
