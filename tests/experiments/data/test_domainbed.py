import os
import re
import shutil

import numpy as np
import pytest

from experiments.data import domainbed
from experiments.data.batches import batches, stream
from experiments.data.decode import View
from experiments.data.source import hold_out
from tests.experiments import tiny


@pytest.fixture
def root(tmp_path):
  return tiny.domainbed(tmp_path / "data")


def read(root):
  """What is seen of every domain, by name."""
  images = domainbed.open_images(root, view=View(8))
  return {name: part.in_memory() for name, part in images.by_domain().items()}


def test_reads_every_domain_with_the_same_labels(root):
  (root / ".cache").mkdir()
  (root / "art" / "cat" / "notes.txt").write_text("not an image")
  (root / "art" / "cat" / "._0.png").write_bytes(b"left by an archiver")
  domains = read(root)
  assert list(domains) == sorted(tiny.DOMAINS)
  for split in domains.values():
    assert split.images.shape == (15, 8, 8, 3)
    assert split.images.dtype == np.uint8
    assert split.class_names == tiny.CLASSES
    np.testing.assert_array_equal(split.labels, np.repeat([0, 1, 2], 5))
    # The classes were written in order of brightness.
    brightness = [split.images[split.labels == i].mean() for i in range(3)]
    assert brightness[0] + 50 < brightness[1] < brightness[2] - 50


def test_decoding_does_not_depend_on_the_number_of_threads(root):
  images = domainbed.open_images(root, view=View(16))
  one, four = (images.in_memory(workers=count) for count in (1, 4))
  np.testing.assert_array_equal(one.images, four.images)


def test_a_missing_class_is_named_with_its_domain(root):
  shutil.rmtree(root / "photo" / "owl")
  with pytest.raises(ValueError, match=r"'photo'.*'owl'"):
    read(root)
  (root / "photo" / "owl").mkdir()  # an empty folder is no better
  with pytest.raises(ValueError, match=r"'photo'.*'owl'"):
    read(root)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_broken_image_is_named(root, content):
  path = root / "sketch" / "dog" / "1.JPG"
  path.write_bytes(path.read_bytes()[:400] if content is None else content)
  with pytest.raises(ValueError, match=re.escape(str(path))):
    read(root)


def test_missing_data_says_what_was_expected(tmp_path):
  with pytest.raises(FileNotFoundError, match="<root>/<domain>/<class>"):
    read(tmp_path / "nowhere")
  with pytest.raises(FileNotFoundError, match="<root>/<domain>/<class>"):
    read(tmp_path)


def test_hold_out_cuts_every_class_by_the_seed():
  split = tiny.split(per_class=10)
  split.images[:, 0, 0, 0] = np.arange(30)  # tells the images apart
  source = hold_out(split, fraction=0.2, seed=3)
  assert np.bincount(source.train.labels).tolist() == [8, 8, 8]
  assert np.bincount(source.validation.labels).tolist() == [2, 2, 2]
  ids = [part.images[:, 0, 0, 0].tolist() for part in source]
  assert sorted(ids[0] + ids[1]) == list(range(30))
  again = hold_out(split, fraction=0.2, seed=3)
  np.testing.assert_array_equal(source.train.images, again.train.images)
  other = hold_out(split, fraction=0.2, seed=4)
  assert ids[1] != other.validation.images[:, 0, 0, 0].tolist()


def test_hold_out_leaves_an_image_on_either_side():
  pair = tiny.split(per_class=2)
  for fraction in (0.01, 0.99):
    source = hold_out(pair, fraction=fraction, seed=0)
    assert len(source.train) == len(source.validation) == 3
  with pytest.raises(ValueError, match=r"\(0, 1\), got 1\.0"):
    hold_out(pair, fraction=1.0, seed=0)
  with pytest.raises(ValueError, match="'class 0'"):
    hold_out(tiny.split(per_class=1), fraction=0.5, seed=0)


def test_batches_are_a_function_of_seed_and_step():
  split = tiny.split()
  dataset = batches(split, batch_size=10, seed=0)
  first = list(stream(dataset, 0, 6))
  assert first[0]["image"].shape == (10, 16, 16, 3)
  assert first[0]["image"].dtype == np.uint8
  assert first[0]["label"].dtype == np.int32
  # Resumed at step 4, and asked for a step at random: across the epoch's end
  # after 2.4 batches.
  for step, batch in zip((4, 5), stream(dataset, 4, 6), strict=True):
    np.testing.assert_array_equal(batch["image"], first[step]["image"])
    np.testing.assert_array_equal(batch["label"], first[step]["label"])
  np.testing.assert_array_equal(dataset[5]["image"], first[5]["image"])
  other = batches(split, batch_size=10, seed=1)[0]
  assert not np.array_equal(other["image"], first[0]["image"])


def test_an_epoch_holds_every_image_once_and_the_next_is_shuffled_anew():
  split = tiny.split()
  dataset = batches(split, batch_size=24, seed=0, augment="none")

  def ids(batch):
    return [image.tobytes() for image in batch["image"]]

  originals = [image.tobytes() for image in split.images]
  assert sorted(ids(dataset[0])) == sorted(ids(dataset[1])) == sorted(originals)
  assert ids(dataset[0]) != ids(dataset[1])


def test_what_a_folder_of_domains_leaves_out_is_counted(tmp_path):
  root = tiny.domainbed(tmp_path / "data", per_class=1)
  os.mkfifo(root / "art" / "cat" / "pipe.png")
  os.mkfifo(root / "pipe")
  (root / "art" / "cat" / "about.txt").write_text("cats")
  (root / "photo" / "gone").symlink_to("nowhere")
  (root / "photo" / "empty").mkdir()
  shutil.copy(root / "art" / "cat" / "0.png", root / "art" / "beside.png")
  (root / "art" / "dog" / "more").mkdir()
  images = domainbed.open_images(root, view=View(8))
  assert len(images) == 12
  (sentence,) = images.by_domain()["photo"].left_out
  assert sentence.startswith(f"Left out of {root}: ")
  for reason in (
    "3 names that are no regular file",
    "1 files named .txt",
    "1 class folders without an image",
    "1 images beside the class folders",
    "1 folders among the images",
  ):
    assert reason in sentence
