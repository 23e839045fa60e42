"""Tests `experiments/data/listing.py`."""

import os
import pathlib
import shutil
import unicodedata

import pytest

from experiments.data import listing
from tests.experiments import tiny


def csv_of(folder, text, name="labels.csv", encoding="utf-8"):
  path = folder / name
  path.write_bytes(text.encode(encoding))
  return path


def rows(found, root):
  return [
    (os.path.relpath(file, root), label)
    for file, label in zip(found.files, found.labels, strict=True)
  ]


@pytest.fixture
def art(pacs, tmp_path):
  return pathlib.Path(shutil.copytree(pacs / "art", tmp_path / "art"))


def test_class_folders_are_listed_by_class_and_name(art):
  found = listing.read(art)
  assert found.classes == tiny.CLASSES
  assert found.labels == tuple(name for name in tiny.CLASSES for _ in range(5))
  assert [file.name for file in found.files[:5]] == [
    "0.png", "1.JPG", "2.png", "3.JPG", "4.png",
  ]  # fmt: skip
  assert found.left_out == {}
  assert found.notes() == ()


def test_what_is_left_out_is_counted_by_reason(art):
  for name in ("cat/a.txt", "cat/b.txt", "dog/README", "dog/._0.jpg"):
    (art / name).write_bytes(b"")
  (art / "owl" / "more").mkdir()
  shutil.copy(art / "owl" / "0.png", art / "owl" / "more" / "0.png")
  shutil.copy(art / "owl" / "0.png", art / "beside.png")
  (art / "wren").mkdir()
  (art / "wren" / "x.heic").write_bytes(b"")
  (art / ".git").mkdir()
  found = listing.read(art)
  assert found.classes == tiny.CLASSES
  assert found.left_out == {
    "files named .txt": 2,
    "files without a suffix": 1,
    "hidden files": 1,
    "images in folders below a class folder": 1,
    "files named .heic": 1,
    "class folders without an image": 1,
    "images beside the class folders": 1,
  }
  (note,) = found.notes()
  assert note.startswith(f"Left out of {art}: 2 files named .txt, 1 ")


def test_pipes_and_dangling_links_are_passed_over(art):
  os.mkfifo(art / "cat" / "pipe.png")
  (art / "dog" / "gone.png").symlink_to("nowhere")
  found = listing.read(art)
  assert len(found.files) == 15
  assert found.left_out == {"names that are no regular file": 2}


def test_an_image_is_known_through_links(art, tmp_path):
  linked = tmp_path / "linked" / "cat"
  linked.mkdir(parents=True)
  for file in (art / "cat").iterdir():
    (linked / f"of {file.name}").symlink_to(file)
  (tmp_path / "linked" / "dog").symlink_to(art / "dog")
  one, other = listing.read(art), listing.read(tmp_path / "linked")
  assert len(one.places & other.places) == 10


def test_names_are_the_same_however_an_accent_is_written(art):
  name = "Käuzchen im Baum"
  one, two = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
  assert one != two
  (art / "owl").rename(art / two)
  assert one in listing.read(art).classes
  shutil.copytree(art / "cat", art / one)
  with pytest.raises(ValueError, match="two folders called 'Käuzchen im Baum'"):
    listing.read(art)


def test_a_folder_above_or_inside_class_folders_is_refused(pacs):
  with pytest.raises(FileNotFoundError, match=r"mean .*PACS.art\?"):
    listing.read(pacs)
  with pytest.raises(
    FileNotFoundError, match=r"holds 5 images itself.*a CSV with the columns"
  ):
    listing.read(pacs / "art" / "cat")
  with pytest.raises(FileNotFoundError, match=r"no folder .*or a CSV"):
    listing.read(pacs / "nothing")


@pytest.mark.parametrize(
  "text",
  [
    "file,label\ncat/0.png,a cat\nowl/1.JPG,owl\n",
    # Written by Excel, in another order, with more columns and a blank line.
    "\ufefflabel,split,file\r\na cat,x,cat/0.png\r\n\r\nowl,y,owl/1.JPG\r\n",
    'file, label\n"cat/0.png", "a cat"\nowl/1.JPG, owl ',
  ],
)
def test_a_csv_names_files_and_labels(art, text):
  found = listing.read(csv_of(art, text))
  assert rows(found, art) == [("cat/0.png", "a cat"), ("owl/1.JPG", "owl")]
  assert found.classes == ("a cat", "owl")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", r":1: the first line must name the columns file,label.*got ''"),
    ("file;label\na;b\n", r":1: .*with commas.*got 'file;label'"),
    ("path,label\na,b\n", r":1: .*got 'path,label'"),
    ("file,label,file\na,b,c\n", r":1: .*got 'file,label,file'"),
    ("file,label\ncat/0.png\n", r":2: expected 2 values, got \['cat/0.png'\]"),
    ("file,label\ncat/0.png,a,b\n", r":2: expected 2 values"),
    ("file,label\ncat/0.png,\n", r":2: expected a file and a label.*''"),
    ("file,label\n ,cat\n", r":2: expected a file and a label"),
    (
      "file,label\ncat/0.png,cat\ncat/../cat/0.png,dog\n",
      r":3: 'cat/../cat/0.png' stands in line 2, too",
    ),
    ('file,label\n"cat/0.png,cat\n', r":2: unexpected end of data"),
  ],
)
def test_a_csv_that_cannot_be_meant_is_refused(art, text, message):
  with pytest.raises(ValueError, match=f"labels.csv{message}"):
    listing.read(csv_of(art, text))


def test_a_csv_in_another_encoding_is_refused(art):
  text = "file,label\ncat/0.png,Käuzchen\n"
  for encoding in ("latin-1", "utf-16"):
    path = csv_of(art, text, encoding=encoding)
    with pytest.raises(ValueError, match="is not in UTF-8"):
      listing.read(path)


def test_a_file_that_is_not_there_is_named_or_left_out(art):
  text = "file,label\ncat/0.png,cat\ncat/9.png,cat\ncat,cat\n"
  path = csv_of(art, text)
  with pytest.raises(FileNotFoundError, match=r":3: there is no file .*9\.png"):
    listing.read(path)
  found = listing.read(path, skip_missing=True)
  assert rows(found, art) == [("cat/0.png", "cat")]
  assert found.left_out == {"rows whose file is not there": 2}
  nothing = csv_of(art, "file,label\ncat/9.png,cat\n")
  with pytest.raises(FileNotFoundError, match="names no image that is there"):
    listing.read(nothing, skip_missing=True)
