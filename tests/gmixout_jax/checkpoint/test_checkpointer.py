"""Checkpoints: what is saved comes back, and nothing else ever does."""

import contextlib
import errno
import json
import os
import pathlib
import pickle
import resource
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmixout_jax as gx
from gmixout_jax.checkpoint import Checkpoints
from gmixout_jax.checkpoint.folders import exclusive
from gmixout_jax.clip import CheckpointError

pytestmark = pytest.mark.slow


def state(step=0, cols=40):
  params = {
    "kernel": jnp.full((8, cols), 1.5 + step),
    "half": jnp.full(cols, step, jnp.bfloat16),
  }
  tx = gx.gmixout(optax.adam(1e-2), key=step)
  return {"params": params, "optimizer": tx.init(params), "n": np.int32(step)}


def save(folder, *steps, scores=None, **kwargs):
  with Checkpoints(folder, **kwargs) as checkpoints:
    for step in steps:
      score = None if scores is None else scores[step]
      checkpoints.save(
        step, state(step), iterator={"next_index": step}, score=score
      )
    checkpoints.wait()
    return checkpoints.steps, checkpoints.best


def restore(folder, like=None, **kwargs):
  with Checkpoints(folder, **kwargs) as checkpoints:
    return checkpoints.restore(state() if like is None else like)


def assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for ours, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def files(folder):
  return {
    path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
  }


def test_what_was_saved_comes_back(tmp_path):
  save(tmp_path, 3, 5, config={"rate": 0.1})
  saved = restore(tmp_path, config={"rate": 0.1})
  assert saved.step == 5
  assert saved.iterator == {"next_index": 5}
  assert saved.score is None
  assert_same(saved.state, state(5))
  manifest = json.loads((tmp_path / "00000005/manifest.json").read_text())
  versions = json.loads(manifest["manifest"])["versions"]
  assert versions["jax"] == jax.__version__
  assert versions["optax"] == optax.__version__


def test_an_empty_folder_has_nothing(tmp_path):
  assert restore(tmp_path / "new") is None


def test_nothing_is_pickled_and_no_class_is_named(tmp_path, monkeypatch):
  for name in ("dump", "dumps", "load", "loads"):
    monkeypatch.delattr(pickle, name)
  save(tmp_path, 1)
  assert restore(tmp_path).step == 1
  for content in files(tmp_path).values():
    assert b"gmixout_jax" not in content
    assert b"ScaleByAdamState" not in content


def test_the_newest_and_the_best_are_kept(tmp_path):
  scores = {1: 0.2, 2: 0.9, 3: 0.9, 4: 0.5, 5: 0.1}
  steps, best = save(tmp_path, 1, 2, 3, 4, 5, scores=scores, keep=2)
  assert steps == [2, 4, 5]
  assert best == 2
  assert restore(tmp_path).step == 5
  assert save(tmp_path / "b", 1, 2, 3, keep=1) == ([3], None)


def test_a_save_is_not_changed_by_what_overwrites_its_buffers(tmp_path):
  step = jax.jit(lambda x: x + 1, donate_argnums=0)
  big = jnp.zeros(1_000_000)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(0, {"x": big})
    for _ in range(20):
      big = step(big)
  saved = restore(tmp_path, {"x": big})
  assert not np.asarray(saved.state["x"]).any()


def test_a_saved_step_is_not_overwritten(tmp_path):
  save(tmp_path, 3)
  before = files(tmp_path / "00000003")
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(3, state(4))
  assert files(tmp_path / "00000003") == before


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


def test_what_others_keep_in_the_folder_stays(tmp_path):
  """Steps of another library, class folders: digits are nobody's mark."""
  for name in ("0", "7", "00000003", "00000005.mine"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "image.png").write_bytes(name.encode())
  before = files(tmp_path)
  assert save(tmp_path, 1, 2, keep=1) == ([2], None)
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(OSError, match="00000003 exists and is no checkpoint"),
  ):
    checkpoints.save(3, state(3))
  assert restore(tmp_path).step == 2
  assert before.items() <= files(tmp_path).items()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"config": {"a": {"rate": 0.2}}}, "config 'a/rate' is 0.1 there and 0.2"),
    ({"config": {"a": {"rate": 0.1}, "b": 1}}, "'b' is absent there and 1"),
    ({"config": {"a": {}}}, "config 'a/rate' is 0.1 there and absent here"),
    (
      {"config": {"a": {"rate": 0.1}, "b": []}},
      r"'b' is absent there and \[\]",
    ),
    ({"config": {"a": {"rate": 0.1}, "b": {}}}, "'b' is absent there and {}"),
    (
      {"config": {"a": {"rate": 0.1}, "b": "absent"}},
      "'b' is absent there and absent here",
    ),
    ({"config": {"a": {"rate": 0.1, "n": [[]]}}}, r"'a/n' is .* and \[\[\]\]"),
    (
      {"like": lambda: state(cols=80)},
      r"leaf 'optimizer/anchor/kernel' is float32\[8, 4\] there and"
      r" float32\[8, 8\] here",
    ),
    (
      {"like": lambda: state() | {"more": jnp.zeros(1)}},
      r"leaf 'more' is absent there and float32\[1\] here",
    ),
    (
      {"like": lambda: {"params": state()["params"]}},
      r"leaf 'n' is int32\[\] there and absent here",
    ),
  ],
)
def test_another_run_is_refused_by_its_first_difference(
  tmp_path, change, message
):
  config = {"a": {"rate": 0.1}}
  save(tmp_path, 3, config=config)
  before = files(tmp_path / "00000003")
  like = change.get("like", state)()
  with pytest.raises(CheckpointError, match=message):
    restore(tmp_path, like, config=change.get("config", config))
  assert files(tmp_path / "00000003") == before


def test_another_number_of_devices(tmp_path):
  def rows(count):
    mesh = Mesh(np.array(jax.devices()[:count]), "rows")
    return NamedSharding(mesh, PartitionSpec("rows"))

  values = jnp.arange(64.0).reshape(16, 4)
  for count in (8, 1):
    with Checkpoints(tmp_path / str(count)) as checkpoints:
      checkpoints.save(1, {"x": jax.device_put(values, rows(count))})
  for saved_on, loaded_on in ((8, 2), (1, 8)):
    like = {
      "x": jax.ShapeDtypeStruct((16, 4), values.dtype, sharding=rows(loaded_on))
    }
    saved = restore(tmp_path / str(saved_on), like)
    assert len(saved.state["x"].devices()) == loaded_on
    np.testing.assert_array_equal(saved.state["x"], values)


def test_the_state_to_restore_may_depend_on_the_step(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(3, {"losses": jnp.arange(3)})
    saved = checkpoints.restore(
      lambda step: {"losses": jnp.zeros(step, jnp.int32)}
    )
  assert saved.state["losses"].tolist() == [0, 1, 2]


def test_two_runs_in_one_folder(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, state(1))
    message = (
      rf"{tmp_path} is written to by another run \(process {os.getpid()}"
    )
    with pytest.raises(ValueError, match=message):
      Checkpoints(tmp_path)
    with pytest.raises(ValueError, match=message), exclusive(tmp_path):
      pass
  assert restore(tmp_path).step == 1  # it is free again


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


@pytest.mark.parametrize("keep", [0, -1])
def test_keep_is_checked(tmp_path, keep):
  with pytest.raises(ValueError, match=f"keep must be at least 1.*{keep}"):
    Checkpoints(tmp_path, keep=keep)


def test_leaves_of_one_name_are_refused(tmp_path):
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(ValueError, match="2 leaves of only 1 different paths"),
  ):
    checkpoints.save(1, {"a": {"b": jnp.zeros(1)}, "a/b": jnp.zeros(1)})
