"""Tests `gmixout_jax/checkpoint/files.py`."""

import os
import pathlib

import jax.numpy as jnp
import pytest
from flax import nnx

import gmixout_jax as gx
from gmixout_jax import checkpoint
from gmixout_jax.checkpoint import files, folders


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


TOWER = dict(width=8, depth=1, heads=2, mlp_width=16)
VISION = gx.clip.VisionConfig(image_size=16, patch_size=8, **TOWER)


def save_a_clip(path):
  text = gx.clip.TextConfig(vocab_size=10, eos_token_id=9, **TOWER)
  config = gx.clip.CLIPConfig(vision=VISION, text=text)
  gx.clip.save_pretrained(gx.clip.CLIP(config, rngs=nnx.Rngs(0)), path)


def save_in_any_form(path):
  gx.clip.save(gx.clip.ViT(VISION, rngs=nnx.Rngs(0)), path)


def save_a_vit(path):
  model = gx.clip.ViT(
    gx.clip.VisionConfig.vit(image_size=16, patch_size=8, **TOWER),
    rngs=nnx.Rngs(0),
  )
  gx.clip.vit_to_safetensors(model, path)


def save_checkpoints(path):
  with checkpoint.Checkpoints(path) as checkpoints:
    checkpoints.save(1, {"w": jnp.ones(2)})


def hold(path):
  with folders.exclusive(path):
    pass


# Everything public that takes a path, and the argument's name.
TAKING_PATHS = {
  "Checkpoints": (save_checkpoints, "folder"),
  "exclusive": (hold, "folder"),
  "save_pretrained": (save_a_clip, "directory"),
  "from_pretrained": (gx.clip.from_pretrained, "directory"),
  "vit_to_safetensors": (save_a_vit, "path"),
  "vit_from_safetensors": (gx.clip.vit_from_safetensors, "path"),
  "load_tokenizer": (gx.clip.load_tokenizer, "directory"),
  "load_preprocessing": (gx.clip.load_preprocessing, "directory"),
  "load_class_names": (gx.clip.load_class_names, "path"),
  "load": (gx.clip.load, "path"),
  "save": (save_in_any_form, "path"),
  "load_normalization": (gx.clip.load_normalization, "directory"),
  "save_normalization": (
    lambda path: gx.clip.save_normalization(path, [0.5], [0.5]),
    "directory",
  ),
  "save_preprocessing": (
    lambda path: gx.clip.save_preprocessing(
      path, gx.clip.Preprocessing((0.5,), (0.5,))
    ),
    "directory",
  ),
}


@pytest.mark.parametrize("name", TAKING_PATHS)
@pytest.mark.parametrize(
  "address",
  [
    "gs://bucket/run",
    "s3://bucket/run",
    "hdfs://host/run",
    "file:///tmp/run",
    pathlib.Path("gs://bucket/run"),
  ],
)
def test_a_bucket_is_refused_before_anything_is_touched(
  tmp_path, monkeypatch, name, address
):
  monkeypatch.chdir(tmp_path)
  call, argument = TAKING_PATHS[name]
  message = f"{argument} must be a path on .* got '{os.fspath(address)}'"
  with pytest.raises(ValueError, match=message):
    call(address)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  "path", ["runs/gs", "/runs/a:b/c", "C:/runs", "a:b", ".gs://x", "1s3://x"]
)
def test_other_paths_are_paths(path):
  assert files.local_path("folder", path) == pathlib.Path(path)


def test_temporary_files_are_nobodys_and_on_disk_before_the_rename(
  tmp_path, monkeypatch
):
  path, synced, names = tmp_path / "file", [], []
  fsync, replace = os.fsync, os.replace
  monkeypatch.setattr(
    os, "fsync", lambda one: synced.append(os.fstat(one).st_ino) or fsync(one)
  )

  def replacing(source, target):
    assert os.stat(source).st_ino == synced[-1]
    replace(source, target)

  monkeypatch.setattr(os, "replace", replacing)
  for _ in range(2):
    with files.replacing(path) as temporary:
      names.append(temporary.name)
      assert temporary.parent == tmp_path
      assert str(os.getpid()) not in temporary.name.split(".")
      temporary.write_text("new")
  assert synced[-1] == tmp_path.stat().st_ino
  assert names[0] != names[1]
  long = tmp_path / ("ä" * 127)
  with files.replacing(long) as temporary:
    temporary.write_text("x")
  assert long.read_text() == "x"


def test_links_are_not_followed(tmp_path):
  victim = tmp_path / "victim"
  victim.write_text("mine")
  link = tmp_path / "link"
  link.symlink_to(victim)
  with files.replacing(link) as temporary:
    temporary.write_text("new")
  assert victim.read_text() == "mine"
  assert link.read_text() == "new"
  assert not link.is_symlink()


def test_a_file_is_made_as_the_umask_has_it(tmp_path):
  before = os.umask(0o027)
  try:
    with files.replacing(tmp_path / "file") as temporary:
      temporary.chmod(0o600)
  finally:
    os.umask(before)
  assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
