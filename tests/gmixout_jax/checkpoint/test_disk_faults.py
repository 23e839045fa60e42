"""What fails on disk: damage, cut-off saves, folders and disks that refuse."""

import contextlib
import errno
import os
import pathlib
import resource
import tempfile

import numpy as np
import pytest

from gmixout_jax.checkpoint import Checkpoints
from gmixout_jax.checkpoint.folders import exclusive
from tests.gmixout_jax.checkpoint.small_run import (
  assert_same,
  files,
  restore,
  save,
  state,
)

pytestmark = pytest.mark.slow


def largest(folder):
  paths = [path for path in (folder / "state").rglob("*") if path.is_file()]
  return max(paths, key=lambda path: path.stat().st_size)


def truncate(folder):
  path = largest(folder)
  os.truncate(path, path.stat().st_size - 1)
  return path.name


def flip(folder):
  path = largest(folder)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  return path.name


def lose(folder):
  path = largest(folder)
  path.unlink()
  return path.name


def truncate_manifest(folder):
  os.truncate(folder / "manifest.json", 100)
  return "manifest.json"


def edit_manifest(folder):
  path = folder / "manifest.json"
  text = path.read_text()
  assert "next_index" in text
  path.write_text(text.replace("next_index", "next_indey"))
  return "manifest.json"


@pytest.mark.parametrize(
  "damage", [truncate, flip, lose, truncate_manifest, edit_manifest]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
  tmp_path, damage
):
  save(tmp_path, 3, 5)
  name = damage(tmp_path / "00000005")
  with pytest.warns(UserWarning, match=rf"{name}.*step 5 is set aside"):
    saved = restore(tmp_path)
  assert saved.step == 3
  assert_same(saved.state, state(3))
  # It can be saved again, and what was found is there to be looked at.
  assert save(tmp_path, 5)[0] == [3, 5]
  assert (tmp_path / "00000005.damaged").is_dir()
  assert restore(tmp_path).step == 5


def test_if_all_are_damaged_there_is_none(tmp_path):
  save(tmp_path, 3)
  flip(tmp_path / "00000003")
  with pytest.warns(UserWarning, match="step 3"):
    assert restore(tmp_path) is None


def test_a_save_that_was_cut_off_is_no_checkpoint(tmp_path):
  save(tmp_path, 3, 5)
  cut_off = tmp_path / "gmixout-unfinished-00000005"
  (tmp_path / "00000005").rename(cut_off)
  assert restore(tmp_path).step == 3
  assert not cut_off.exists()


def test_a_folder_that_cannot_be_written_to():
  if os.geteuid() != 0:
    pytest.skip("only root can become somebody else")
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name) / "runs"
    save(folder, 1)
    for path in (pathlib.Path(name), folder):
      path.chmod(0o555)
    before = files(folder)
    os.seteuid(65534)
    try:
      for path in (folder, folder / "new"):
        with pytest.raises(PermissionError, match=f"cannot go to {path}"):
          Checkpoints(path)
    finally:
      os.seteuid(0)
    assert files(folder) == before


def test_a_file_where_the_folder_should_be(tmp_path):
  (tmp_path / "runs").write_text("mine")
  with pytest.raises(OSError, match=f"cannot go to {tmp_path}/runs"):
    Checkpoints(tmp_path / "runs")
  # Not of checkpoints: it is also held for results.
  message = f"files cannot be written to {tmp_path}/runs: File exists"
  with pytest.raises(OSError, match=message), exclusive(tmp_path / "runs"):
    pass
  assert (tmp_path / "runs").read_text() == "mine"


def test_a_full_disk_leaves_the_older_checkpoints(tmp_path):
  """Files may not grow past a limit; that fails like a disk that is full."""
  save(tmp_path, 1)
  before = files(tmp_path / "00000001")
  noise = np.random.default_rng(0).standard_normal(200_000)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  with Checkpoints(tmp_path) as checkpoints:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
      checkpoints.save(2, {"x": noise.astype(np.float32)})
      message = rf"step 2 could not be written to {tmp_path}.*newest.*: 1"
      with pytest.raises(OSError, match=message):
        checkpoints.wait()
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert files(tmp_path / "00000001") == before
  assert not (tmp_path / "00000002").exists()
  assert restore(tmp_path).step == 1


def fail_to_save(monkeypatch):
  def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(pathlib.Path, "write_text", full)


def test_an_error_of_the_system_keeps_its_kind(tmp_path, monkeypatch):
  with Checkpoints(tmp_path) as checkpoints:
    fail_to_save(monkeypatch)
    checkpoints.save(1, state(1))
    with pytest.raises(OSError, match="No space left") as raised:
      checkpoints.wait()
  assert raised.value.errno == errno.ENOSPC
  assert not (tmp_path / "00000001").exists()


def test_closing_tells_that_the_last_save_failed(tmp_path, monkeypatch):
  checkpoints = Checkpoints(tmp_path)
  with monkeypatch.context() as patch:
    fail_to_save(patch)
    checkpoints.save(1, state(1))
    with pytest.raises(OSError, match=r"step 1 could not .*No space left"):
      checkpoints.close()
  checkpoints.close()  # all has been told, and a second time does no harm
  assert save(tmp_path, 2)[0] == [2]  # the folder is free


class Spoilt:
  def close(self):
    raise ZeroDivisionError


def test_a_failed_save_does_not_hide_an_error(tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    fail_to_save(patch)
    with (
      pytest.raises(ZeroDivisionError),
      Checkpoints(tmp_path) as checkpoints,
      contextlib.closing(Spoilt()),
    ):
      checkpoints.save(1, state(1))
    with (
      pytest.raises(OSError, match="step 1 could not be written"),
      Checkpoints(tmp_path) as checkpoints,
    ):
      checkpoints.save(1, state(1))
  assert save(tmp_path, 2)[0] == [2]
