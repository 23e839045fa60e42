"""Tests ``python -m experiments.data check``, on PACS for real."""

import pathlib
import tarfile

import numpy as np
import pytest

from experiments.data import __main__ as command
from experiments.data import domainbed, known
from experiments.data.decode import View
from tests.experiments import tiny
from tests.experiments.data import disk


def run(capsys, *arguments):
  status = command.main(["check", *map(str, arguments)])
  return status, " ".join("".join(capsys.readouterr()).split())


def test_a_complete_copy_passes(tmp_path, capsys, monkeypatch):
  root = tiny.domainbed(tmp_path / "data", per_class=2)
  counts = dict.fromkeys(tiny.DOMAINS, 6)
  expected = known.KNOWN["pacs"]._replace(images=counts, total=24, classes=3)
  monkeypatch.setitem(known.KNOWN, "pacs", expected)
  status, shown = run(capsys, root, "--as", "pacs", "--decode")
  assert status == 0
  assert "24 images, as expected" in shown


def test_what_differs_is_listed(tmp_path, capsys):
  root = tiny.domainbed(tmp_path / "data", per_class=2)
  bad = root / "photo" / "dog" / "0.png"
  bad.write_bytes(b"broken")
  for file in (root / "sketch" / "owl").iterdir():
    file.unlink()
  status, shown = run(capsys, root, "--as", "pacs", "--decode")
  assert status == 1
  for sentence in (
    "art_painting: found 0 images, expected 2048",
    "found art, which should not be there",
    "found 22 images in all, expected 9991",
    "found 3 classes, expected 7",
    "sketch: no images of 1 classes, such as owl",
    "not a readable image",
  ):
    assert sentence in shown


def test_unknown_totals_are_said_to_be_unknown(tmp_path, capsys):
  root = tiny.domainbed(tmp_path / "data", per_class=1)
  status, shown = run(capsys, root, "--as", "domainbed")
  assert status == 0
  assert "how many there should be is not known" in shown


def test_what_cannot_be_read_says_what_was_expected(tmp_path, capsys):
  status, shown = run(capsys, tmp_path / "nowhere", "--as", "imagenet_v2")
  assert status == 2
  assert "<root>/<number>/<image>" in shown
  status, shown = run(capsys, tmp_path, "--as", "mnist")
  assert status == 2
  assert "'mnist'" in shown


@pytest.mark.parametrize("name", [n for n in known.KNOWN if n != "tfds"])
def test_every_name_opens_its_format(name, tmp_path, capsys):
  if name in ("imagenet_v2",):
    disk.tree(tmp_path, {"0": 1, "1": 1})
  elif name == "objectnet":
    disk.objectnet(tmp_path)
  elif name.startswith("imagenet_lt"):
    disk.tree(tmp_path / "train", {disk.IDS[0]: 1})
    (tmp_path / "ImageNet_LT_train.txt").write_text(
      f"train/{disk.IDS[0]}/0.JPEG 0\n"
    )
  elif name.startswith("imagenet"):
    disk.tree(tmp_path, {disk.IDS[0]: 1, disk.IDS[1]: 2})
  elif name.startswith("cifar100_c"):
    from experiments.data import cifar_c

    names = cifar_c.BENCHMARK + cifar_c.EXTRA
    disk.cifar_c(tmp_path, names, count=3)
  elif name == "iwildcam":
    disk.iwildcam(tmp_path, [("train", "a.jpg", 0, 0)])
  else:
    tiny.domainbed(tmp_path, per_class=1)
  status, shown = run(capsys, tmp_path, "--as", name)
  assert status == (name != "domainbed")  # read, and found to be too small
  assert "expected" in shown or name == "domainbed"


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
  shared = pathlib.Path(__file__).parents[4] / "shared"
  if not (shared / "data" / "pacs_160.tar").is_file():
    pytest.skip(f"no PACS at {shared}/data")
  root = tmp_path_factory.mktemp("pacs")
  with tarfile.open(shared / "data" / "pacs_160.tar") as archive:
    archive.extractall(root, filter="data")
  return root / "PACS"


@pytest.mark.shared
def test_pacs_is_complete(pacs, capsys):
  status, shown = run(capsys, pacs, "--as", "pacs")
  assert status == 0
  assert "9991 images, as expected" in shown


@pytest.mark.shared
def test_pacs_is_read(pacs):
  images = domainbed.open_images(pacs, view=View(32))
  assert images.class_names == (
    "dog", "elephant", "giraffe", "guitar", "horse", "house", "person",
  )  # fmt: skip
  assert images.counts().sum(axis=1).tolist() == [2048, 2344, 1670, 3929]
  every_40th = images.take(np.arange(0, len(images), 40))
  split = every_40th.in_memory(workers=2)
  assert split.images.shape == (250, 32, 32, 3)
  # Sketches are dark strokes on white, which tells that labels of domains and
  # pixels belong together.
  white = np.mean(split.images > 250, axis=(1, 2, 3))
  sketch = every_40th.domains == images.domain_names.index("sketch")
  assert white[sketch].mean() > 0.5 > white[~sketch].mean()


def test_a_class_of_another_size_is_named(tmp_path, capsys):
  disk.tree(tmp_path, {"0": 10, "1": 9, "2": 11, "3": 10})
  status, shown = run(capsys, tmp_path, "--as", "imagenet_v2")
  assert status == 1
  assert "2 classes do not have 10 images; class 1 has 9" in shown


@pytest.mark.parametrize(
  "name", [n for n, one in known.KNOWN.items() if one.images and one.total]
)
def test_the_parts_of_a_known_set_add_up(name):
  """The total and the parts come from different tables of a paper."""
  assert sum(known.KNOWN[name].images.values()) == known.KNOWN[name].total
