"""Checkpoints: what is saved comes back, and nothing else ever does."""

import json
import os
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gmixout_jax.checkpoint import Checkpoints
from gmixout_jax.checkpoint.folders import exclusive
from gmixout_jax.clip import CheckpointError
from tests.gmixout_jax.checkpoint.small_run import (
  assert_same,
  files,
  restore,
  save,
  state,
)

pytestmark = pytest.mark.slow


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


def test_whoever_goes_back_must_say_where_the_later_ones_go(tmp_path):
  save(tmp_path, 1, 2, 3)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.restore(state(), step=2)
    for step in (2, 1):
      with pytest.raises(ValueError, match=f"above 3, .* got {step}: to go on"):
        checkpoints.save(step, state(9))
  assert restore(tmp_path).step == 3


def test_closed_ones_are_named(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.close()
  for use in (lambda: checkpoints.save(1, state(1)),
              lambda: checkpoints.restore(state())):  # fmt: skip
    with pytest.raises(ValueError, match=f"{tmp_path} are closed"):
      use()


def test_a_run_with_numpys_64_bits_has_many_lives(tmp_path):
  """JAX holds 32, and so does what is restored and saved again."""
  found = {"w": np.zeros(3), "seen": np.int64(0)}
  for step in range(1, 4):
    with Checkpoints(tmp_path) as checkpoints:
      saved = checkpoints.restore({"w": np.zeros(3), "seen": np.int64(0)})
      if saved is not None:
        found = saved.state
      checkpoints.save(step, {"w": found["w"] + 1, "seen": found["seen"] + 1})
  saved = restore(tmp_path, {"w": np.zeros(3), "seen": np.int64(0)})
  assert saved.state["w"].tolist() == [3.0] * 3
  assert int(saved.state["seen"]) == 3


@pytest.mark.parametrize("name", ["0", "7", "00000003", "notes.txt", "run_00"])
def test_a_folder_of_something_else_is_refused_untouched(tmp_path, name):
  """Steps of another library, class folders: digits are nobody's mark."""
  if name.endswith(".txt"):
    (tmp_path / name).write_text("mine")
  else:
    (tmp_path / name).mkdir()
    file = "image.png" if name == "00000003" else "manifest.json"
    (tmp_path / name / file).write_text("{}")
  before = files(tmp_path)
  message = f"must be empty, or hold checkpoints .* it holds '{name}'"
  with pytest.raises(CheckpointError, match=message):
    Checkpoints(tmp_path)
  assert files(tmp_path) == before


def test_what_others_put_into_the_folder_later_stays(tmp_path):
  assert save(tmp_path, 1, keep=1) == ([1], None)
  for name in ("0", "7", "00000003", "00000005.mine"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "image.png").write_bytes(name.encode())
  (tmp_path / "7" / "manifest.json").write_text("{}")
  before = {
    k: v for k, v in files(tmp_path).items() if "00000001" not in str(k)
  }
  assert save(tmp_path, 2, keep=1) == ([2], None)
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(OSError, match="00000003 exists and is no checkpoint"),
  ):
    checkpoints.save(3, state(3))
  assert restore(tmp_path).step == 2
  assert {**files(tmp_path), **before} == files(tmp_path)


def test_a_damaged_mark_is_named(tmp_path):
  save(tmp_path, 1)
  mark = tmp_path / "gmixout-checkpoints.json"
  for text in ("", "[]", '{"found": ["1"]}'):
    mark.write_text(text)
    with pytest.raises(CheckpointError, match=f"{mark} is damaged"):
      Checkpoints(tmp_path)


def test_any_kept_step_is_restored(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    for step, score in ((1, 0.9), (2, 0.1), (3, 0.2), (4, 0.3)):
      checkpoints.save(step, state(step), score=score)
    checkpoints.wait()
    assert checkpoints.steps == [1, 3, 4]
    for step in checkpoints.steps:
      saved = checkpoints.restore(state(), step=step)
      assert saved.step == step
      assert_same(saved.state, state(step))
    best = checkpoints.restore(state(), step=checkpoints.best)
    assert (best.step, best.score) == (1, 0.9)
    with pytest.raises(ValueError, match=r"step must be one of \[1, 3, 4\].*2"):
      checkpoints.restore(state(), step=2)
    (file,) = (tmp_path / "00000003" / "state").glob("commit_success.txt")
    file.write_text("other")
    with pytest.raises(CheckpointError, match="commit_success"):
      checkpoints.restore(state(), step=3)
    assert checkpoints.restore(state()).step == 4


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


@pytest.mark.parametrize("keep", [0, -1, 1.5, "2"])
def test_keep_is_checked(tmp_path, keep):
  with pytest.raises(ValueError, match=f"keep must be at least 1.*{keep}"):
    Checkpoints(tmp_path, keep=keep)


def test_leaves_of_one_name_are_refused(tmp_path):
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(ValueError, match="2 leaves of only 1 different paths"),
  ):
    checkpoints.save(1, {"a": {"b": jnp.zeros(1)}, "a/b": jnp.zeros(1)})
