"""Tests CIFAR-C, iWildCam and prepared TensorFlow data sets."""

import builtins
import pathlib
import pickle
import re
import shutil
import socket
import sys

import numpy as np
import pytest

from experiments.data import cifar_c, iwildcam, tfds_sets
from experiments.data.decode import View
from tests.experiments.data import disk


def brightness(images):
  return [int(images[i]["image"].mean()) for i in range(len(images))]


def test_cifar_c_finds_corruption_and_severity(tmp_path):
  root = disk.cifar_c(tmp_path, ("fog", "snow"))
  images = cifar_c.open_images(
    root, corruptions=("fog", "snow"), severities=(2, 5)
  )
  assert images.domain_names == ("fog/2", "fog/5", "snow/2", "snow/5")
  assert brightness(images.domain("fog/5")) == [25, 26, 27, 28]
  assert brightness(images.domain("snow/2")) == [50, 51, 52, 53]
  assert images.domain("snow/5").labels.tolist() == [0, 1, 2, 0]
  assert images.name(5) == "fog.npy[17]"
  assert pickle.loads(pickle.dumps(images))[3]["image"][0, 0, 0] == 13
  larger = cifar_c.open_images(root, corruptions=("fog",), view=View(16))
  assert larger[0]["image"].shape == (16, 16, 3)


def test_cifar_c_says_whether_it_is_fifteen_or_nineteen(tmp_path):
  root = disk.cifar_c(tmp_path, cifar_c.BENCHMARK + cifar_c.EXTRA, count=3)
  assert len(cifar_c.open_images(root).domain_names) == 15 * 5
  every = cifar_c.open_images(root, corruptions="all")
  assert len(every.domain_names) == 19 * 5
  assert len(every) == 19 * 5 * 3


def test_cifar_c_names_what_is_wrong(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"gaussian_noise\.npy"):
    cifar_c.open_images(tmp_path)
  root = disk.cifar_c(tmp_path, ("fog", "snow"))
  for wrong, message in (
    ({"corruptions": ("haze",)}, "'haze'"),
    ({"corruptions": "most"}, "'most'"),
    ({"corruptions": ()}, r"corruptions must name at least one, got \(\)"),
    ({"severities": ()}, r"severities must name at least one, got \(\)"),
    ({"corruptions": ("fog",), "severities": (6,)}, "got 6"),
  ):
    with pytest.raises(ValueError, match=message):
      cifar_c.open_images(root, **wrong)
  for content in (b"", b"not numpy"):
    (root / "labels.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"labels\.npy is not a NumPy file"):
      cifar_c.open_images(root, corruptions=("fog",))
  np.save(root / "labels.npy", np.array(["cat"] * 4))
  with pytest.raises(ValueError, match=r"labels\.npy is <U3 \[4\]: expected"):
    cifar_c.open_images(root, corruptions=("fog",))
  np.save(root / "labels.npy", np.arange(7))
  with pytest.raises(ValueError, match="7 labels: expected 4 or 20"):
    cifar_c.open_images(root, corruptions=("fog",))
  np.save(root / "labels.npy", np.arange(20))
  with pytest.raises(ValueError, match="differs between severities"):
    cifar_c.open_images(root, corruptions=("fog",))
  np.save(root / "fog.npy", np.zeros((20, 8, 8), np.uint8))
  with pytest.raises(ValueError, match=r"fog\.npy is uint8 \[20, 8, 8\]"):
    cifar_c.open_images(root, corruptions=("fog",))
  np.save(root / "fog.npy", np.zeros((10, 8, 8, 3), np.uint8))
  with pytest.raises(ValueError, match=r"\[10, 20\] images"):
    cifar_c.open_images(root, corruptions=("fog", "snow"))
  (root / "fog.npy").write_bytes(b"not numpy")
  with pytest.raises(ValueError, match=r"fog\.npy is not a NumPy file"):
    cifar_c.open_images(root, corruptions=("fog",))
  (root / "labels.npy").unlink()
  with pytest.raises(FileNotFoundError, match=r"labels\.npy"):
    cifar_c.open_images(root, corruptions=("snow",))


ROWS = [
  ("train", "a.jpg", 0, 0),
  ("test", "b.jpg", 2, 3),
  ("train", "c.jpg", 1, 1),
  ("id_val", "d.jpg", 1, 0),
]


def test_iwildcam_has_a_set_per_split_and_a_domain_per_trap(tmp_path):
  root = disk.iwildcam(tmp_path, ROWS)
  splits = iwildcam.open_images(root, view=View(8))
  assert list(splits) == ["train", "id_val", "test"]
  assert brightness(splits["train"]) == [0, 20]
  assert splits["train"].labels.tolist() == [0, 1]
  assert splits["test"].domains.tolist() == [3]
  assert splits["test"].domain_names[3] == "location 3"
  assert splits["train"].class_names == ("0", "1", "2")
  (root / "categories.csv").write_text("y,name\n0,empty\n2,puma\n99,unseen\n")
  named = iwildcam.open_images(root, view=View(8))["train"]
  assert named.class_names == ("empty", "1", "puma")


def test_iwildcam_names_what_is_wrong(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"metadata\.csv: expected col"):
    iwildcam.open_images(tmp_path, view=View(8))
  file = tmp_path / "metadata.csv"
  for text, message in (
    ("split,filename,y\n", "lacks the columns location_remapped"),
    ("split,filename,y,location_remapped\n", "no rows"),
    ("split,filename,y,location_remapped\nx,a,0,0\n", r"csv:2: split 'x'"),
    ("split,filename,y,location_remapped\ntrain,a,cat,0\n", r"csv:2: .*'cat'"),
    (
      "split,filename,y,location_remapped\ntrain,a,0,0\ntrain,b,1",
      r"csv:3: the line ends before location_remapped",
    ),
    ("split,filename,y,location_remapped\ntrain,a,-1,0\n", "a has label -1"),
  ):
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
      iwildcam.open_images(tmp_path, view=View(8))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A data set as TFDS prepares it."""
  return disk.tfds(tmp_path_factory.mktemp("tfds"), {"train": 6, "test": 1})


def test_tfds_is_read_without_tensorflow(prepared):
  images = tfds_sets.open_images(prepared, "train", view=View(8))
  assert "tensorflow" not in sys.modules
  assert images.class_names == ("a", "b", "c", "d")
  assert images.labels.tolist() == [1, 3, 1, 3, 1, 3]
  assert brightness(images) == [0, 30, 60, 90, 120, 150]
  part = tfds_sets.open_images(prepared, "train[:50%]", view=View(8))
  assert brightness(part) == [0, 30, 60]
  assert tfds_sets.splits(prepared) == ("train", "test")


def test_tfds_labels_are_read_in_pieces(capsys):
  class Records(list):
    def __getitems__(self, keys):
      return [self[key] for key in keys]

  records = Records({"label": i} for i in range(11))
  pick = lambda record: record["label"]
  found = tfds_sets.read_each(records, pick, "labels", chunk=4)
  assert found == list(range(11))
  capsys.readouterr()  # the progress bar


def test_tfds_counts_only_classes_that_are_present_if_asked(prepared):
  images = tfds_sets.open_images(
    prepared, "train", present_only=True, view=View(8)
  )
  assert images.class_names == ("b", "d")
  assert images.outputs == ((1,), (3,))
  assert images.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_tfds_says_how_to_prepare_what_is_missing(tmp_path):
  with pytest.raises(FileNotFoundError, match="tfds build cifar100 --file_f"):
    tfds_sets.open_images("cifar100", "test", data_dir=tmp_path)
  with pytest.raises(FileNotFoundError, match=r"no dataset_info\.json"):
    tfds_sets.open_images(tmp_path, "test")


def test_tfds_says_what_to_install(tmp_path, monkeypatch):
  real = builtins.__import__

  def without(name, *args, **kwargs):
    if name == "tensorflow_datasets":
      raise ImportError(name)
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", without)
  with pytest.raises(ImportError, match=r"gmixout-jax\[experiments\]"):
    tfds_sets.open_images("cifar100", "test", data_dir=tmp_path)


def test_tfds_takes_the_newest_version(tmp_path):
  with pytest.raises(FileNotFoundError, match="tfds build food101 --file_f"):
    tfds_sets.version_of(tmp_path / "food101")
  for version in ("9.0.1", "10.0.0"):
    (tmp_path / version).mkdir()
    (tmp_path / version / "dataset_info.json").touch()
  assert tfds_sets.version_of(tmp_path) == tmp_path / "10.0.0"


@pytest.mark.parametrize(
  "name", ["huggingface:mnist", "gs://bucket/mnist", "a b", "[/red]"]
)
def test_tfds_paths_never_use_the_network(tmp_path, monkeypatch, name):
  """Sets of communities are looked up where they are."""
  monkeypatch.setattr(
    socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network")
  )
  with pytest.raises(ValueError, match="name must be the folder of a prepared"):
    tfds_sets.splits(name, data_dir=tmp_path)


@pytest.mark.parametrize("names", ["a\na\nc\nd\n", "a\nb\nc\n"])
def test_tfds_must_name_every_class_once(prepared, tmp_path, names):
  copy = pathlib.Path(shutil.copytree(prepared, tmp_path / "1.0.0"))
  (copy / "label.labels.txt").write_text(names)
  with pytest.raises(ValueError, match=re.escape(str(copy))):
    tfds_sets.open_images(copy, "train", view=View(8))
