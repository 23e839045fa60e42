"""Tests images with captions, and the batches that are made of them."""

import collections
import csv
import sys
from typing import ClassVar

import numpy as np
import pytest

from experiments.data import captions
from experiments.data.decode import View
from experiments.data.pairs import Pairs
from tests.experiments.data import disk

VIEW = View(8)
CAPTIONS = {
  "b.jpg": ["A dog, running .", 'The "dog" runs'],
  "a.jpg": ["A cat"],
  "c.jpg": ["Two cats", "a\nbreak", "Cats"],
}


def folder(root):
  """Three images, of which none has the extension that the file says."""
  for value, name in enumerate(CAPTIONS):
    disk.picture(root / "images" / name.replace("jpg", "webp"), 40 * value)
  with open(root / "captions.txt", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["image", "caption"])
    for name, texts in CAPTIONS.items():
      writer.writerows([name, text] for text in texts)
  return root


def brightness(images):
  return [int(images[i]["image"].mean()) for i in range(len(images))]


def test_a_csv_is_read_in_its_order(tmp_path):
  found = captions.open_csv(folder(tmp_path) / "captions.txt", view=VIEW)
  assert list(map(list, found.captions)) == list(CAPTIONS.values())
  assert brightness(found.images) == [0, 40, 80]
  assert found.texts() == [t for texts in CAPTIONS.values() for t in texts]
  assert found.owners().tolist() == [0, 0, 1, 2, 2, 2]
  assert found.images.name(1).endswith("images/a.webp")


def test_a_file_of_the_very_name_goes_first(tmp_path):
  folder(tmp_path)
  disk.picture(tmp_path / "images" / "a.jpg", 200)
  found = captions.open_csv(tmp_path / "captions.txt", view=VIEW)
  assert brightness(found.images) == [0, 200, 80]
  (tmp_path / "images" / "a.jpg").rename(tmp_path / "images" / "a.png")
  with pytest.raises(ValueError, match=r"txt:4: .*a\.png and a\.webp may be"):
    captions.open_csv(tmp_path / "captions.txt", view=VIEW)


def test_a_folder_may_be_elsewhere_and_deep(tmp_path):
  disk.picture(tmp_path / "pictures" / "train" / "x.png", 30)
  file = tmp_path / "list.csv"
  file.write_text("\ufeffimage,caption\ntrain/x.jpg,Grey\n", encoding="utf-8")
  found = captions.open_csv(file, folder=tmp_path / "pictures", view=VIEW)
  assert brightness(found.images) == [30]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("image;caption\na.jpg;A cat\n", r"txt:1: expected the header 'image,cap"),
    ("", r"txt:1: expected the header"),
    ("image,caption\n", "no captions"),
    ("image,caption\na.jpg,A cat\nd.jpg,A dog\n", r"txt:3: no image 'd\.jpg'"),
    ("image,caption\na.jpg,A cat, asleep\n", r"txt:2: .*3 values"),
    ('image,caption\nb.jpg,"two\nlines"\na.jpg\n', r"txt:4: .*1 values"),
    ("image,caption\na.jpg,  \n", r"txt:2: expected an image and a caption"),
    ("image,caption\n,A cat\n", r"txt:2: expected an image and a caption"),
    ('image,caption\na.jpg,"A cat\n', r"captions\.txt:\d+: "),
  ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
  (folder(tmp_path) / "captions.txt").write_text(text)
  with pytest.raises(ValueError, match=message):
    captions.open_csv(tmp_path / "captions.txt", view=VIEW)


def test_what_is_no_text_is_named(tmp_path):
  file = folder(tmp_path) / "captions.txt"
  file.write_bytes(b"image,caption\na.jpg,caf\xe9\n")
  with pytest.raises(ValueError, match=r"captions\.txt:\d"):
    captions.open_csv(file, view=VIEW)


def test_what_is_absent_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"captions\.txt: expected a CSV"):
    captions.open_csv(tmp_path / "captions.txt", view=VIEW)
  file = folder(tmp_path) / "captions.txt"
  with pytest.raises(FileNotFoundError, match=r"no .*pictures: expected"):
    captions.open_csv(file, folder=tmp_path / "pictures", view=VIEW)


def test_a_prepared_data_set_is_read_without_tensorflow(tmp_path):
  import tensorflow_datasets as tfds

  class Captioned(tfds.core.GeneratorBasedBuilder):
    """Has what coco_captions has, but for the objects."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict] = {}  # nothing to download

    def _info(self):
      text = {"id": np.int64, "text": tfds.features.Text()}
      features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "captions": tfds.features.Sequence(text),
      }
      return self.dataset_info_from_configs(
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
        homepage="https://example.org",
        description="Images of one brightness.",
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for i, texts in enumerate(CAPTIONS.values()):
        path = disk.picture(tmp_path / "made" / f"{i}.png", 30 * i)
        listed = [{"id": j, "text": text} for j, text in enumerate(texts)]
        yield i, {"image": str(path), "captions": listed}

  builder = Captioned(data_dir=tmp_path, file_format="array_record")
  builder.download_and_prepare()
  found = captions.open_tfds(builder.data_path, "train", view=VIEW)
  assert "tensorflow" not in sys.modules
  assert list(map(list, found.captions)) == list(CAPTIONS.values())
  assert brightness(found.images) == [0, 30, 60]


def test_digits_are_rendered_with_their_captions():
  found = captions.render(3, seed=0, view=View(16))
  assert found.captions[2] == ("a photo of the digit two",)
  assert found.images[2]["image"].shape == (16, 16, 3)


def test_an_image_without_caption_is_named():
  loader = captions.render(2, seed=0, view=VIEW).images.loader
  with pytest.raises(ValueError, match=r"rendered digits 0\[1\] has no capt"):
    captions.CaptionSet.of(loader, [["zero"], [" "]])


def test_no_image_is_in_both_parts():
  whole = captions.render(10, seed=0, view=VIEW)
  train, held = whole.split(3, seed=5)
  assert (len(train), len(held)) == (7, 3)
  rows = np.concatenate([train.images.rows, held.images.rows])
  assert sorted(rows) == list(range(10))
  for part in (train, held):
    assert part.captions == tuple(whole.captions[r] for r in part.images.rows)
  again, _ = whole.split(3, seed=5)
  assert again.images.rows.tolist() == train.images.rows.tolist()
  other, _ = whole.split(3, seed=6)
  assert other.images.rows.tolist() != train.images.rows.tolist()
  for count in (0, 10):
    with pytest.raises(ValueError, match=f"held_out must be 1 to 9.*{count}"):
      whole.split(count, seed=0)


def pairs(*, images=60, texts=4, views=2):
  """Image i's views are i and −1 − i; caption j of it has the tokens i, j."""
  index = np.arange(images, dtype=np.float32)
  features = np.stack([index, -1 - index], axis=1)[:, :views, None]
  tokens = np.stack(np.divmod(np.arange(images * texts), texts), axis=1)
  return Pairs(features, tokens, np.repeat(np.arange(images), texts))


def image_of(batch):
  flat = batch["image"][:, 0]
  return np.where(flat < 0, -1 - flat, flat).astype(int)


def test_an_epoch_shows_every_image_once_with_a_caption_of_its_own():
  batches = pairs().batches(batch_size=20, seed=0)
  seen = []
  for number in range(3):
    batch = batches[number]
    np.testing.assert_array_equal(batch["tokens"][:, 0], image_of(batch))
    seen += image_of(batch).tolist()
  assert sorted(seen) == list(range(60))
  assert seen != list(range(60))


def test_a_batch_is_a_function_of_seed_and_step():
  one, other = (pairs().batches(batch_size=20, seed=3) for _ in range(2))
  for step in (7, 2):
    for name in ("image", "tokens"):
      np.testing.assert_array_equal(one[step][name], other[step][name])
  another = pairs().batches(batch_size=20, seed=4)
  assert image_of(another[2]).tolist() != image_of(one[2]).tolist()


def test_captions_and_views_are_drawn_evenly_and_apart():
  batches = pairs().batches(batch_size=60, seed=0)
  counts = collections.Counter()
  for epoch in range(40):
    batch = batches[epoch]
    mirrored = batch["image"][:, 0] < 0
    drawn = np.stack([batch["tokens"][:, 1], mirrored], axis=1)
    counts.update(map(tuple, drawn.tolist()))
  assert len(counts) == 8
  # 2,400 draws of 8 outcomes: 300 each, give or take five deviations of 16.
  assert all(220 < count < 380 for count in counts.values()), counts


def test_pixels_are_decoded_when_they_are_drawn(tmp_path):
  found = captions.open_csv(folder(tmp_path) / "captions.txt", view=VIEW)
  tokens = np.arange(6)[:, None]
  batch = Pairs(found.images, tokens, found.owners()).batches(
    batch_size=3, seed=0
  )[0]
  assert batch["image"].shape == (3, 8, 8, 3)
  assert batch["image"].dtype == np.uint8
  owner = np.array([0, 0, 1, 2, 2, 2])[batch["tokens"][:, 0]]
  assert batch["image"].mean(axis=(1, 2, 3)).tolist() == (40 * owner).tolist()


def test_a_batch_cannot_hold_an_image_twice():
  with pytest.raises(ValueError, match="1 to 60, the number of images, got 61"):
    pairs().batches(batch_size=61, seed=0)
