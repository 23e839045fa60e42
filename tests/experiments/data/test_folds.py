"""Tests leave-one-domain-out."""

import numpy as np
import pytest

from experiments.data import domainbed, folds
from experiments.data.decode import View
from experiments.data.images import ImageSet, Pixels
from experiments.data.source import Source
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.model_soups import GreedySoup
from experiments.tasks.task import Opened
from experiments.training.runs import Runs
from tests.experiments import tiny


@pytest.fixture
def four():
  return tiny.of_splits(
    {name: tiny.split(per_class=10, seed=i) for i, name in enumerate("abcd")}
  )


def test_a_fold_is_a_partition(four):
  fold = folds.leave_out(four, "c", seed=0)
  assert fold.train.counts().tolist() == [[8] * 3, [8] * 3, [0] * 3, [8] * 3]
  assert list(fold.validation) == ["a", "b", "d"]
  parts = [fold.train, *fold.validation.values(), fold.target]
  rows = np.concatenate([part.rows for part in parts])
  assert sorted(rows) == list(range(120))
  assert fold.target.counts()[2].tolist() == [10] * 3


def test_a_domain_is_cut_alike_in_every_fold(four):
  every = {name: folds.leave_out(four, name, seed=1) for name in "abcd"}
  for name in "abd":
    held = every["c"].validation[name].rows
    for target in "abd".replace(name, ""):
      np.testing.assert_array_equal(every[target].validation[name].rows, held)
  other = folds.leave_out(four, "c", seed=2)
  assert set(other.train.rows) != set(every["c"].train.rows)


def test_the_only_image_of_a_class_stays_in_training():
  pixels = Pixels(np.zeros((5, 8, 8, 3), np.uint8))
  rare = ImageSet.of(
    pixels, [0, 0, 1, 0, 1], ["x", "y"], domains=[0, 0, 0, 1, 1],
    domain_names=["a", "b"],
  )  # fmt: skip
  fold = folds.leave_out(rare, "b", seed=0)
  assert fold.train.counts()[0].tolist() == [1, 1]
  assert fold.validation["a"].counts()[0].tolist() == [1, 0]


def test_a_fold_needs_a_target_and_another_domain(four):
  with pytest.raises(ValueError, match="got 'e'"):
    folds.leave_out(four, "e", seed=0)
  alone = tiny.of_splits({"a": tiny.split()})
  with pytest.raises(ValueError, match="needs two, got a"):
    folds.leave_out(alone, "a", seed=0)


def test_balanced_batches_hold_as_many_of_every_domain():
  uneven = tiny.of_splits(
    {"a": tiny.split(per_class=1), "b": tiny.split(per_class=20, seed=1)}
  )
  records = folds.balanced_batches(uneven, batch_size=8, seed=0)
  seen = []
  for step in range(15):
    batch = records[step]
    assert np.bincount(batch["domain"]).tolist() == [4, 4]
    seen += [image.tobytes() for image in batch["image"][batch["domain"] == 1]]
  assert len(set(seen)) == 60  # one epoch of b holds each image once
  again = folds.balanced_batches(uneven, batch_size=8, seed=0)[7]
  np.testing.assert_array_equal(records[7]["image"], again["image"])
  other = folds.balanced_batches(uneven, batch_size=8, seed=1)[7]
  assert not np.array_equal(records[7]["image"], other["image"])


def test_a_fold_without_a_domain_streams_the_others(four):
  train = folds.leave_out(four, "a", seed=0).train
  batch = folds.balanced_batches(train, batch_size=6, seed=0)[0]
  assert np.bincount(batch["domain"], minlength=4).tolist() == [0, 2, 2, 2]


def test_a_fold_on_disk_trains_like_one_in_memory(tmp_path):
  root = tiny.domainbed(tmp_path / "data", per_class=5)
  images = domainbed.open_images(root, view=View(tiny.SIZE))
  fold = folds.leave_out(images, "photo", seed=0)
  assert len(fold.source.validation) == sum(map(len, fold.validation.values()))
  assert not set(fold.source.validation.rows) & set(fold.train.rows)
  held = fold.source.validation
  np.testing.assert_array_equal(held.labels, images.labels[held.rows])
  np.testing.assert_array_equal(held.domains, images.domains[held.rows])
  lazy = fold.source
  eager = Source(lazy.train.in_memory(), lazy.validation.in_memory())

  def fit(source):
    method = FullFinetuning(learning_rate=1e-3)
    # The head is blank, so both parts are needed to probe; a soup of one run
    # needs the latter to choose.
    soup = GreedySoup(of=method, runs=1)
    task = Opened(model=tiny.classifier(), source=source, steps=2, batch_size=4)
    return Runs(task, [soup]).outcome(soup)

  one, other = fit(lazy), fit(eager)
  np.testing.assert_array_equal(one.losses, other.losses)
  assert one.cost.evaluations == other.cost.evaluations > 0
