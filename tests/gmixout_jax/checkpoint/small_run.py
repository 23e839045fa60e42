"""A run with a little of everything, its checkpoints, and their files."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmixout_jax as gx
from gmixout_jax.checkpoint import Checkpoints


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
