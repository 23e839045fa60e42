"""Tests the one interface of all readers, and the stream made from it."""

import os
import pickle

import grain
import numpy as np
import pytest

from experiments.data import domainbed, images
from experiments.data.augmentation import POLICIES
from experiments.data.batches import batches, stream
from experiments.data.decode import View, decode
from tests.experiments import tiny
from tests.experiments.data import disk


@pytest.fixture
def opened(tmp_path):
  root = tiny.domainbed(tmp_path / "data", per_class=3)
  return domainbed.open_images(root, view=View(8))


def test_an_item_is_what_the_whole_set_has_there(opened):
  assert opened.domain_names == tuple(sorted(tiny.DOMAINS))
  for name, domain in opened.by_domain().items():
    assert len(domain) == 9
    whole = domain.in_memory()
    for index in (8, 0, 4):
      item = domain[index]
      np.testing.assert_array_equal(item["image"], whole.images[index])
      assert item["label"] == whole.labels[index]
      assert opened.domain_names[item["domain"]] == name
  np.testing.assert_array_equal(opened.counts(), np.full((4, 3), 3))


def test_nothing_is_decoded_before_it_is_asked_for(opened):
  bad = opened.name(5)
  with open(bad, "wb") as file:
    file.write(b"broken")
  assert opened[4]["image"].shape == (8, 8, 3)
  with pytest.raises(ValueError, match=bad):
    opened[5]
  with pytest.raises(ValueError, match=bad):
    opened.in_memory(workers=2)


def test_broken_images_are_counted_and_left_out(opened):
  bad = [opened.name(index) for index in (5, 30)]
  for name in bad:
    with open(name, "wb") as file:
      file.write(b"broken")
  intact = opened.intact(workers=2)
  assert [broken.name for broken in intact.broken] == bad
  assert all(
    "not a readable image" in broken.reason for broken in intact.broken
  )
  kept = np.delete(np.arange(36), (5, 30))
  np.testing.assert_array_equal(intact.labels, opened.labels[kept])
  np.testing.assert_array_equal(intact.domains, opened.domains[kept])
  assert len(intact.in_memory()) == 34


def test_a_set_without_images_is_named(opened):
  for index in range(9):
    with open(opened.name(index), "wb") as file:
      file.write(b"")
  with pytest.raises(
    ValueError, match=r"domains art, cartoon, .*: 9 could not .*first is .*art"
  ):
    opened.intact().domain("art").in_memory()


def test_batches_from_disk_are_those_from_memory(opened):
  lazy = batches(opened, batch_size=10, seed=3, augment="none")
  eager = opened.in_memory()
  for step, batch in zip(range(2, 6), stream(lazy, 2, 6), strict=True):
    same = batches(eager, batch_size=10, seed=3, augment="none")[step]
    np.testing.assert_array_equal(batch["image"], same["image"])
    np.testing.assert_array_equal(batch["label"], same["label"])
    assert batch["domain"].dtype == np.int32


def test_a_set_can_go_to_another_process(opened):
  again = pickle.loads(pickle.dumps(opened))
  np.testing.assert_array_equal(again[7]["image"], opened[7]["image"])
  # Grain takes it for a source of its own kind.
  assert len(grain.MapDataset.source(opened)) == 36


def test_chunks_are_all_images_in_order(opened):
  whole = opened.in_memory().images
  chunks = list(opened.chunks(10, workers=3))
  assert [len(chunk) for chunk in chunks] == [10, 10, 10, 6]
  np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_labels_and_domains_are_checked_on_opening():
  pixels = images.Pixels(np.zeros((3, 8, 8, 3), np.uint8), origin="x.npy")
  with pytest.raises(ValueError, match=r"x\.npy\[1\] has label 2: expected 0"):
    images.ImageSet.of(pixels, [0, 2, 1], ["a", "b"])
  with pytest.raises(ValueError, match=r"x\.npy\[0\] has domain -1"):
    images.ImageSet.of(pixels, [0, 1, 1], ["a", "b"], domains=[-1, 0, 0])
  with pytest.raises(ValueError, match="1 entries for 2 classes"):
    images.ImageSet.of(pixels, [0, 1, 1], ["a", "b"], outputs=[[0]])


def test_an_unknown_domain_is_refused(opened):
  with pytest.raises(
    ValueError, match="art, cartoon, photo, sketch; got 'oil'"
  ):
    opened.domain("oil")


def test_squeezing_keeps_the_borders_and_cropping_the_proportions(tmp_path):
  from PIL import Image

  pixels = np.zeros((20, 40, 3), np.uint8)
  pixels[:, :10], pixels[:, 30:] = 255, 255  # white but for the central square
  file = tmp_path / "a.png"
  Image.fromarray(pixels).save(file)
  squeezed = decode(file, View(20))
  assert squeezed.shape == (20, 20, 3)
  assert squeezed[:, :4].min() == 255
  assert squeezed[:, 8:12].max() == 0
  cropped = decode(file, View(20, fit="crop"))
  assert cropped[:, 1:-1].max() == 0
  assert decode(file.read_bytes(), View(10, "crop", zoom=2.0)).max() == 0
  assert decode(file, View(20, border=9)).shape == (20, 20, 3)
  with pytest.raises(
    ValueError, match="border of 10 leaves nothing of 40 x 20"
  ):
    decode(file, View(20, border=10))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"size": 0}, "at least 1 pixel, got 0"),
    ({"size": 8, "fit": "stretch"}, "'stretch'"),
    ({"size": 8, "zoom": 0.5}, "got 0.5"),
    ({"size": 8, "border": -1}, "got -1"),
  ],
)
def test_a_view_is_checked(arguments, message):
  with pytest.raises(ValueError, match=message):
    View(**arguments)


def test_an_image_that_claims_to_be_enormous_is_broken(tmp_path):
  from PIL import Image

  file = tmp_path / "a.bmp"
  Image.new("RGB", (9, 9)).save(file)
  content = bytearray(file.read_bytes())
  content[18:26] = (10**6).to_bytes(4, "little") * 2  # width and height
  file.write_bytes(content)
  with pytest.raises(ValueError, match=rf"{file} is not a readable image"):
    decode(file, View(4))
  with pytest.raises(ValueError, match=r"x\.jpg is not a readable image: .*No"):
    decode(tmp_path / "x.jpg", View(4))


def test_greyscale_and_palette_images_are_read_as_colour(tmp_path):
  from PIL import Image

  for mode in ("L", "P", "1", "RGBA", "CMYK"):
    file = tmp_path / f"{mode}.tif"
    Image.new(mode, (9, 9)).save(file)
    assert decode(file, View(4)).shape == (4, 4, 3)
  assert disk.picture(tmp_path / "x.png", 7).is_file()


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "x.png")
  loader = images.Files((str(tmp_path / "x.png"),), View(8))
  one = images.ImageSet.of(loader, [0], ["a"])
  with pytest.raises(ValueError, match=r"x\.png is not .*no regular file"):
    one[0]
  policy = POLICIES["basic"]
  with pytest.raises(ValueError, match=r"x\.png is not .*no regular file"):
    one.drawn(0, policy, np.random.default_rng(0))
