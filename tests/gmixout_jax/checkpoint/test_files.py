"""Tests `gmixout_jax/checkpoint/files.py`."""

import pytest

import gmixout_jax as gx
from gmixout_jax import checkpoint
from gmixout_jax.checkpoint import files


def test_the_error_is_one_class_wherever_it_is_imported_from():
  assert gx.clip.CheckpointError is files.CheckpointError
  assert checkpoint.CheckpointError is files.CheckpointError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
  path = tmp_path / "file"
  path.write_text("old")
  with files.replacing(path) as temporary:
    temporary.write_text("new")
    assert path.read_text() == "old"
  assert path.read_text() == "new"

  def write_half():
    with files.replacing(path) as temporary:
      temporary.write_text("ne")
      raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    write_half()
  assert path.read_text() == "new"
  assert list(tmp_path.iterdir()) == [path]
