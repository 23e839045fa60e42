"""Tests `gmixout_jax/checkpoint/manifests.py`: what is no array."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from gmixout_jax.checkpoint import Checkpoints

pytestmark = pytest.mark.slow

CYCLE = {}
CYCLE["self"] = CYCLE
DEEP = []
for _ in range(100_000):
  DEEP = [DEEP]


@pytest.mark.parametrize(
  ("change", "error", "message"),
  [
    ({"step": -1}, ValueError, "step must be an integer .* got -1"),
    ({"step": 2.0}, ValueError, r"step must be an integer .* got 2\.0"),
    ({"step": "2"}, ValueError, "step must be an integer .* got '2'"),
    ({"score": float("nan")}, ValueError, "score must be a finite .* got nan"),
    ({"score": np.inf}, ValueError, "score must be a finite .* got inf"),
    ({"score": "0.5"}, ValueError, "score must be a finite .* got '0.5'"),
    ({"score": 1j}, ValueError, "score must be a finite .* got 1j"),
    ({"score": np.ones(2)}, ValueError, "score must be a finite number"),
    (
      {"iterator": np.int64(3)},
      TypeError,
      r"iterator must be JSON, got np.int64\(3\)",
    ),
    ({"iterator": [np.nan]}, ValueError, r"iterator must be JSON, got \[nan\]"),
    ({"iterator": DEEP}, ValueError, "iterator must be JSON, .*recursion"),
    ({"iterator": CYCLE}, ValueError, "iterator must be JSON, .*Circular"),
  ],
)
def test_what_cannot_be_saved_is_refused_at_once(
  tmp_path, change, error, message
):
  arguments = {"step": 2, "state": {"x": jnp.zeros(1)}} | change
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, arguments["state"])
    with pytest.raises(error, match=message):
      checkpoints.save(**arguments)
    checkpoints.wait()
    assert checkpoints.steps == [1]


@pytest.mark.parametrize(
  ("config", "error"),
  [({"a": np.float32(1)}, TypeError), ({"a": float("inf")}, ValueError)],
)
def test_a_config_that_is_not_json_is_refused(tmp_path, config, error):
  with pytest.raises(error, match=r"config must be JSON, got \{'a': "):
    Checkpoints(tmp_path / "new", config=config)
  assert not (tmp_path / "new").exists()


def test_numbers_of_arrays_are_numbers(tmp_path):
  progress = {"next": [1]}
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(
      np.int64(1),
      {"x": jnp.zeros(1)},
      iterator=progress,
      score=jnp.bfloat16(0.5),
    )
    progress["next"].append(2)  # while it is being written
    checkpoints.save(jnp.int32(2), {"x": jnp.zeros(1)}, score=np.float32(0.25))
    checkpoints.wait()
    assert checkpoints.best == 1
    assert checkpoints.steps == [1, 2]
  manifest = json.loads((tmp_path / "00000001/manifest.json").read_text())
  saved = json.loads(manifest["manifest"])
  assert (saved["step"], saved["score"]) == (1, 0.5)
  assert saved["iterator"] == {"next": [1]}
