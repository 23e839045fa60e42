"""Tests `experiments/tasks/user_images.py`."""

import pathlib
import re
import shutil

import numpy as np
import pytest

from experiments.data.decode import View
from experiments.data.images import Files
from experiments.tasks import memory, user_images
from experiments.tasks.user_images import UserImages
from tests.experiments import tiny

VIEW = View(tiny.SIZE, fit="crop")


def pixels(images):
  return [image.tobytes() for image in images.in_memory().images]


def described(**fields):
  found = UserImages(**fields).described(16, 4)
  assert {k: found[k] for k in ("image_size", "batch_size")} == {
    "image_size": 16,
    "batch_size": 4,
  }
  return found["data"]


@pytest.fixture
def photos(pacs, tmp_path):
  """A copy that a test may change: <domain>/<class>/<image>."""
  return pathlib.Path(shutil.copytree(pacs, tmp_path / "photos"))


def test_a_share_of_the_training_images_is_held_out_by_the_seed(pacs):
  images = UserImages(train=pacs / "art", held_out=0.4)
  first, again, other = (images.open(VIEW, seed) for seed in (0, 0, 1))
  train, validation = first.source
  assert train.counts().tolist() == [[3, 3, 3]]
  assert validation.counts().tolist() == [[2, 2, 2]]
  assert not set(pixels(train)) & set(pixels(validation))
  assert pixels(validation) == pixels(again.source.validation)
  assert pixels(validation) != pixels(other.source.validation)
  assert first.ood == {}
  assert first.test is None  # ID accuracy is that on the validation images
  assert not first.balanced
  assert first.words() == tiny.CLASSES


def test_validation_and_ood_images_are_those_that_are_named(pacs):
  images = UserImages(
    train=pacs / "art",
    validation=pacs / "sketch",
    ood=(("by night", pacs / "photo"), ("drawn", pacs / "cartoon")),
  )
  for seed in (0, 1):  # which has nothing to cut
    sets = images.open(VIEW, seed)
    whole = UserImages(train=pacs / "art").open(VIEW, 0).source
    every = sorted([*pixels(whole.train), *pixels(whole.validation)])
    assert sorted(pixels(sets.source.train)) == every
    assert list(sets.ood) == ["by night", "drawn"]
    for found, folder in (
      (sets.source.validation, "sketch"),
      (sets.ood["by night"], "photo"),
      (sets.ood["drawn"], "cartoon"),
    ):
      other = UserImages(train=pacs / folder).open(VIEW, 0).source
      wanted = sorted([*pixels(other.train), *pixels(other.validation)])
      assert sorted(pixels(found)) == wanted


def test_labels_go_by_the_names_of_the_classes(pacs):
  """Brightness tells the classes apart, in every folder."""
  images = UserImages(train=pacs / "art", ood=(("photo", pacs / "photo"),))
  sets = images.open(VIEW, 0)
  for found in (*sets.source, sets.ood["photo"]):
    assert found.class_names == tiny.CLASSES
    split = found.in_memory()
    brightness = split.images.mean(axis=(1, 2, 3))
    np.testing.assert_array_equal(np.int32(brightness // 80), split.labels)


def test_classes_that_differ_are_listed_on_both_sides(photos):
  (photos / "art" / "owl").rename(photos / "art" / "eule")
  train, other = photos / "photo", photos / "art"
  message = re.escape(
    f"{other} must have the classes of {train}, by name, but it lacks 'owl' and"
    f" has besides 'eule'.\n  {train}: cat, dog, owl\n  {other}: cat, dog, eule"
  )
  for fields in ({"validation": other}, {"ood": (("art", other),)}):
    with pytest.raises(ValueError, match=message):
      UserImages(train=train, **fields).open(VIEW, 0)
  fewer = photos / "sketch"
  shutil.rmtree(fewer / "owl")
  with pytest.raises(ValueError, match=r"it lacks 'owl'\.\n"):
    UserImages(train=train, validation=fewer).open(VIEW, 0)
  with pytest.raises(ValueError, match=r"it has besides 'owl'\.\n"):
    UserImages(train=fewer, validation=train).open(VIEW, 0)


def test_what_is_not_there_is_named(pacs, tmp_path):
  missing = tmp_path / "none"
  with pytest.raises(
    FileNotFoundError, match="none: expected <folder>/<class>"
  ):
    UserImages(train=missing).open(VIEW, 0)
  with pytest.raises(
    FileNotFoundError, match="none: expected <folder>/<class>"
  ):
    UserImages(train=pacs / "art", ood=(("x", missing),)).open(VIEW, 0)
  (tmp_path / "empty" / "cat").mkdir(parents=True)
  with pytest.raises(FileNotFoundError, match=r"no images in .*empty"):
    UserImages(train=tmp_path / "empty").open(VIEW, 0)
  shutil.copytree(pacs / "art" / "cat", tmp_path / "one" / "cat")
  with pytest.raises(ValueError, match=r"one has one class, 'cat': expected"):
    UserImages(train=tmp_path / "one").open(VIEW, 0)


def test_all_sets_together_are_in_memory_or_none_is(photos, monkeypatch):
  images = UserImages(train=photos / "art", ood=(("photo", photos / "photo"),))
  monkeypatch.setattr(memory, "LIMIT", 30 * tiny.SIZE**2 * 3)
  held = images.open(VIEW, 0)
  assert isinstance(held.source.train.loader, memory.Decoded)
  monkeypatch.setattr(memory, "LIMIT", 30 * tiny.SIZE**2 * 3 - 1)
  on_disk = images.open(VIEW, 0)
  for one in (*on_disk.source, on_disk.ood["photo"]):
    assert isinstance(one.loader, Files)
  assert pixels(on_disk.ood["photo"]) == pixels(held.ood["photo"])


def test_broken_images_stop_a_run_or_are_left_out(photos):
  (photos / "art" / "cat" / "0.png").write_bytes(b"no image")
  (photos / "photo" / "owl" / "2.png").write_bytes(b"")
  fields = {"train": photos / "art", "ood": (("photo", photos / "photo"),)}
  with pytest.raises(ValueError, match=r"cat.0\.png is not a readable image"):
    UserImages(**fields).open(VIEW, 0)
  skipping = UserImages(**fields, skip_broken=True)
  sets = skipping.open(VIEW, 0)
  assert [note.partition(" that ")[0] for note in sets.notes] == [
    f"Left out 1 of 15 images of {photos / name}" for name in ("art", "photo")
  ]
  assert "(1: cannot identify image file); the first is" in sets.notes[0]
  assert len(sets.source.train) + len(sets.source.validation) == 14
  assert sets.ood["photo"].counts().tolist() == [[5, 5, 4]]
  assert described(**fields, skip_broken=True)["skip_broken"] is True
  assert "skip_broken" not in described(**fields)


def test_a_class_without_an_image_that_can_be_read_is_named(photos):
  for file in (photos / "art" / "dog").iterdir():
    file.write_bytes(b"no image")
  images = UserImages(train=photos / "art", skip_broken=True)
  with pytest.raises(
    ValueError, match=r"class 'dog' of .*art' has no image .* 5"
  ):
    images.open(VIEW, 0)


def test_a_line_says_which_images_these_are_and_not_where(pacs, tmp_path):
  train = described(train=pacs / "art")
  digest = train["train"].pop("digest")
  assert re.fullmatch("[0-9a-f]{12}", digest)
  assert train == {
    "train": {"folder": "art", "classes": 3, "images": 15},
    "held_out": 0.2,
  }
  given = described(
    train=pacs / "art",
    validation=pacs / "photo",
    ood=(("night", pacs / "sketch"),),
  )
  assert list(given) == ["train", "validation", "ood"]
  assert given["validation"]["folder"] == "photo"
  assert given["ood"]["night"]["folder"] == "sketch"
  # Wherever it lies.
  moved = pathlib.Path(shutil.copytree(pacs / "art", tmp_path / "a" / "art"))
  assert described(train=moved)["train"] == train["train"] | {"digest": digest}


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_other_images_in_a_folder_of_the_same_name_are_another_task(
  photos, tmp_path, change
):
  art = photos / "art"
  other = pathlib.Path(shutil.copytree(art, tmp_path / "other" / "art"))
  file = other / "cat" / "4.png"  # the last of its class
  if change == "content":
    file.write_bytes(file.read_bytes() + b"0")
  elif change == "name":
    file.rename(file.with_name("5.png"))
  else:
    shutil.copy(file, file.with_name("5.png"))
  first, second = described(train=art)["train"], described(train=other)["train"]
  assert first["folder"] == second["folder"] == "art"
  assert first["digest"] != second["digest"]


def test_ood_folders_have_a_name_each():
  assert user_images.parse_ood(()) == ()
  assert user_images.parse_ood(["a=b/c", "by night=x=y"]) == (
    ("a", pathlib.Path("b/c")),
    ("by night", pathlib.Path("x=y")),
  )
  for wrong in ("night", "=night", "night=", ""):
    with pytest.raises(
      ValueError, match=f"--ood must be NAME=DIR, got '{wrong}'"
    ):
      user_images.parse_ood(["a=b", wrong])
  with pytest.raises(ValueError, match="--ood has 'a' twice, with b and c"):
    user_images.parse_ood(["a=b", "x=y", "a=c"])
