"""Files of others that are damaged, or ask for more than they hold."""

import csv

import numpy as np
import pytest

from experiments.data import captions, cifar_c, damage, iwildcam, long_tail
from experiments.data.decode import View
from tests.experiments import tiny

VIEW = View(8)


@pytest.mark.parametrize(
  "error",
  [
    KeyError("x"), TypeError("x"), AttributeError("x"), OverflowError("x"),
    RecursionError("x"), EOFError("x"), csv.Error("x"), IndexError("x"),
  ],
  ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_a_reader_raises_names_the_file(error):
  with (
    pytest.raises(ValueError, match=r"^a\.csv is damaged: "),
    damage.parsing("a.csv"),
  ):
    raise error


def test_errors_of_input_stay_as_they_are():
  with pytest.raises(ValueError, match=r"^mine$"), damage.parsing("a.csv"):
    raise ValueError("mine")
  with pytest.raises(KeyboardInterrupt), damage.parsing("a.csv"):
    raise KeyboardInterrupt


@pytest.mark.parametrize("labels", [[0, 2**33], [-1, 0], [0, 10**9], [0, 10]])
def test_labels_of_arrays_do_not_wrap(tmp_path, labels):
  np.save(tmp_path / "fog.npy", np.zeros((10, 4, 4, 3), np.uint8))
  np.save(tmp_path / "labels.npy", np.tile(np.array(labels, np.int64), 5))
  with pytest.raises(ValueError, match=r"labels\.npy has labels from .* 10 im"):
    cifar_c.open_images(tmp_path, corruptions=["fog"])


def test_a_damaged_header_of_an_array_is_named(tmp_path):
  for text in (b"", b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', ", b"x" * 90):
    (tmp_path / "fog.npy").write_bytes(text)
    with pytest.raises(ValueError, match=r"fog\.npy is not a NumPy file"):
      cifar_c.open_images(tmp_path, corruptions=["fog"])


@pytest.mark.parametrize("name", ["../0.png", "/etc/passwd", "a/../../0.png"])
def test_names_in_lists_stay_in_their_folder(tmp_path, name):
  tiny.domainbed(tmp_path / "images", per_class=1)
  (tmp_path / "images" / "train").mkdir()
  (tmp_path / "captions.csv").write_text(f"image,caption\n{name},x\n")
  (tmp_path / "list.txt").write_text(f"{name} 0\n")
  (tmp_path / "metadata.csv").write_text(
    f"split,filename,y,location_remapped\ntrain,{name},0,0\n"
  )
  for read in (
    lambda: captions.open_csv(tmp_path / "captions.csv", view=VIEW),
    lambda: long_tail.open_list(
      tmp_path / "list.txt", root=tmp_path / "images"
    ),
    lambda: iwildcam.open_images(tmp_path, view=VIEW),
  ):
    with pytest.raises(ValueError, match=f"'{name}' does not lie in"):
      read()


def test_numbers_that_ask_for_too_many_names_are_refused(tmp_path):
  (tmp_path / "list.txt").write_text("0.png 999999999\n")
  (tmp_path / "0.png").write_bytes(b"")
  with pytest.raises(ValueError, match=r"list\.txt: labels must be .* below"):
    long_tail.open_list(tmp_path / "list.txt", root=tmp_path)
  (tmp_path / "metadata.csv").write_text(
    "split,filename,y,location_remapped\ntrain,0.png,0,1000000000\n"
  )
  with pytest.raises(ValueError, match="location_remapped must be a number be"):
    iwildcam.open_images(tmp_path, view=VIEW)
