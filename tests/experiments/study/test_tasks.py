"""Tests `experiments/study/tasks.py`."""

import dataclasses
import shutil

import numpy as np
import pytest

from experiments import domains
from experiments.models import probe
from experiments.study import tasks
from experiments.study.tasks import Digits, Domains
from gmixout_jax import clip
from tests.experiments import tiny


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
  folder = tmp_path_factory.mktemp("study")
  weights = folder / "vit.safetensors"
  clip.vit_to_safetensors(tiny.vit(width=64, heads=1), weights)
  root = tiny.domainbed(folder / "PACS")
  data = domains.Data(root, source="photo", image_size=16, batch_size=4)
  return Domains(data, weights, steps=2)


def test_digits_are_reported_on_scans_that_no_choice_has_seen():
  loaded = Digits().load(3)
  assert loaded.task.seed == 3
  source = loaded.task.source
  seen = {
    image.tobytes()
    for part in (source.train, source.validation)
    for image in part.images
  }
  assert len(loaded.held_out) == 449
  assert not seen & {image.tobytes() for image in loaded.held_out.images}
  assert len(loaded.targets) == 8


def test_random_weights_are_of_the_seed_and_a_probe_reads_them(monkeypatch):
  setting, probed = Digits(pretrained=False), []

  def fit_head(model, source):
    assert probe.is_blank(model)
    probed.append(len(source.train))
    return model

  monkeypatch.setattr(tasks.probe, "fit_head", fit_head)
  monkeypatch.setattr(tasks.shifts, "out_of_distribution", lambda test: {})
  assert setting.described() == Digits().described() | {"backbone": "random"}
  one, other, trained = (
    from_.load(seed).task.model.backbone.projection.kernel[...]
    for from_, seed in ((setting, 0), (setting, 1), (Digits(), 0))
  )
  assert one.shape == other.shape == trained.shape
  assert not np.array_equal(one, other)
  assert not np.array_equal(one, trained)
  assert probed == [1078, 1078]


def test_a_source_is_left_out_of_the_targets_and_a_target_of_the_source(pacs):
  alone = pacs.load(0)
  assert sorted(alone.targets) == ["art", "cartoon", "sketch"]
  data = dataclasses.replace(pacs.data, source=None, target="art")
  left_out = dataclasses.replace(pacs, data=data).load(0)
  assert sorted(left_out.targets) == ["art"]
  # Three domains of 15 images, a fifth of each class held out.
  assert len(left_out.task.source.train) == 3 * 12
  assert len(left_out.held_out) == 3 * 3
  target = {image.tobytes() for image in left_out.targets["art"].images}
  for part in left_out.task.source:
    images = part.in_memory().images
    assert not target & {image.tobytes() for image in images}


def test_the_head_is_the_linear_probe_of_the_seed(pacs):
  first, again = pacs.load(0).task.model, pacs.load(0).task.model
  assert np.any(first.head.kernel[...])
  assert again is first  # fitted once for all methods
  other = pacs.load(1).task.model
  assert np.any(other.head.kernel[...] != first.head.kernel[...])


def test_images_to_evaluate_on_are_the_same_for_every_seed(pacs):
  few = dataclasses.replace(pacs, per_domain=4)
  first, second = few.load(0).targets, few.load(1).targets
  for name, split in first.items():
    assert len(split) == 4
    np.testing.assert_array_equal(split.images, second[name].images)


def test_a_smaller_training_set_is_part_of_the_whole(pacs):
  whole = pacs.load(3).task.source
  part = dataclasses.replace(pacs, train_images=5).load(3).task.source
  assert len(part.train) == 5
  known = {image.tobytes() for image in whole.train.images}
  assert {image.tobytes() for image in part.train.images} <= known
  np.testing.assert_array_equal(part.validation.images, whole.validation.images)


def test_domains_may_have_any_names(pacs, tmp_path):
  shutil.copytree(pacs.data.root, tmp_path, dirs_exist_ok=True)
  (tmp_path / "sketch").rename(tmp_path / "quickdraw")
  shutil.rmtree(tmp_path / "art")
  data = dataclasses.replace(pacs.data, root=tmp_path)
  source, targets = tasks._cut(dataclasses.replace(pacs, data=data), 0)
  assert len(source.train) == 12
  assert sorted(targets) == ["cartoon", "quickdraw"]
  data = dataclasses.replace(data, source=None, target="cartoon")
  source, targets = tasks._cut(dataclasses.replace(pacs, data=data), 0)
  assert len(source.train) == 24
  assert sorted(targets) == ["cartoon"]


def test_a_domain_that_is_not_there_is_named(pacs):
  data = dataclasses.replace(pacs.data, source="clipart")
  with pytest.raises(ValueError, match=r"source must .* 'clipart' .* art, car"):
    dataclasses.replace(pacs, data=data).load(0)
