"""Checkpoints that version 0.1.0 wrote; see from_0_1_0/README.md."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from gmixout_jax.checkpoint import CheckpointError, Checkpoints

pytestmark = pytest.mark.slow

FOLDER = pathlib.Path(__file__).parent / "from_0_1_0"

START = {
  "kernel": jnp.arange(320.0).reshape(8, 40) / 320,
  "bias": jnp.arange(40.0) / 40,
}
TARGET = {"kernel": -START["kernel"][::-1], "bias": 1 - START["bias"]}


def loss(params):
  misses = jax.tree.map(lambda w, t: jnp.sum((w - t) ** 2), params, TARGET)
  return misses["kernel"] + misses["bias"]


def restored(tmp_path, name):
  """The transformation of the README, and what 0.1.0 saved of its run."""
  sampler, step = name.split("_")
  tx = gx.gmixout(optax.adam(1e-2), sampler=sampler, key=0, resample_every=5)
  shutil.copytree(FOLDER / name, tmp_path / name)
  # Of shapes alone: no value can come from anywhere but the file.
  like = jax.eval_shape(lambda: {"params": START, "opt_state": tx.init(START)})
  with Checkpoints(tmp_path / name) as checkpoints:
    saved = checkpoints.restore(like)
  assert saved is not None
  assert saved.step == int(step)
  return tx, saved.state["params"], saved.state["opt_state"]


def eight_more(tx, params, state):
  for _ in range(8):
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    params = optax.apply_updates(params, updates)
  return params


def what_0_1_0_had(name):
  with np.load(FOLDER / f"{name}_and_8_more.npz") as weights:
    return dict(weights)


def test_a_run_of_0_1_0_goes_on_to_the_same_bits(tmp_path):
  tx, params, state = restored(tmp_path, "stratified_12")
  expected = what_0_1_0_had("stratified_12")
  assert not np.array_equal(params["kernel"], expected["kernel"])
  found = eight_more(tx, params, state)
  for name, leaf in expected.items():
    np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def test_a_folder_of_0_1_0_is_gone_on_with_and_loses_nothing(tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(FOLDER / "stratified_12", folder)
  # What it was saving when it was killed, and what a user keeps beside it.
  (folder / "00000015").mkdir()
  (folder / "00000015" / "half").write_bytes(b"0")
  before = {
    path.relative_to(folder): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file() and "00000015" not in str(path)
  }
  for steps in ((15, 16, 17), (17, 18)):  # also when the mark is there
    with Checkpoints(folder, keep=1) as checkpoints:
      for step in steps:
        checkpoints.save(step, {"x": jnp.zeros(3)})
      checkpoints.wait()
      assert checkpoints.steps == [12, steps[-1]]
  assert (folder / "00000015.damaged" / "half").read_bytes() == b"0"
  for path, content in before.items():
    assert (folder / path).read_bytes() == content


def test_at_an_episodes_end_a_run_goes_on_with_other_masks(tmp_path):
  tx, params, state = restored(tmp_path, "uniform_10")
  found = eight_more(tx, params, state)
  expected = what_0_1_0_had("uniform_10")
  # No mask decides over the bias; where it is active, the kernel fares alike.
  np.testing.assert_array_equal(found["bias"], expected["bias"])
  assert float(loss(found)) < float(loss(params))
  assert float(loss(found)) == pytest.approx(float(loss(expected)), rel=0.1)


def test_in_mid_episode_other_masks_are_refused_by_sampler_and_leaf(tmp_path):
  message = (
    r"'kernel' was saved in mid-episode, after 12 steps, by sampler 'uniform'"
    r".*mask_distribution is 1 there and 2 here"
  )
  with pytest.raises(CheckpointError, match=message):
    restored(tmp_path, "uniform_12")
