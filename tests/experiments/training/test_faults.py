"""Steps that are not finite: the run stops, or skips them without a trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.methods.gmixout import GMixout
from experiments.methods.schedule import Schedule
from experiments.training import loop
from experiments.training.run_checkpoints import RunCheckpointer
from gmixout_jax.checkpoint import Checkpoints
from tests.experiments import tiny

STEPS = 6


class Poisoned(GMixout):
  """The batch says whether the loss, or one leaf's gradient, is spoiled."""

  def loss(self, model, batch, key):
    del key
    x = model.features(jnp.asarray(tiny.split().images[:4]))
    logits = model.head(x)
    loss = (logits**2).mean() + logits[0, 0]
    # The square root has no derivative at 0.
    root = jnp.where(batch == 2, 0.0, 1.0)
    kernel = model.backbone.blocks[1].kernel[...]
    zero = jnp.mean(jnp.sqrt(root + 0 * kernel)) - root
    return jnp.where(batch == 1, jnp.inf, loss + zero)


def fit(codes, *, compact=False, method=Poisoned, skip=0, checkpointer=None):
  return loop.fit(
    method(resample_every=2, learning_rate=1e-2, compact=compact),
    tiny.classifier(),
    lambda start: codes[start:],
    steps=len(codes),
    schedule=Schedule(STEPS, constant=True),
    key=jax.random.key(0),
    skip_nonfinite=skip,
    checkpointer=checkpointer,
  )


def test_an_infinite_loss_stops_the_run():
  with pytest.raises(
    FloatingPointError, match=r"loss of step 1 is inf; all gradients are finite"
  ):
    fit([0, 1, 0])


@pytest.mark.parametrize("compact", [False, True])
def test_the_first_bad_leaf_is_named_and_the_last_good_step_stays(
  tmp_path, compact
):
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(FloatingPointError) as raised,
  ):
    fit(
      [0, 0, 0, 2, 0, 0],
      compact=compact,
      checkpointer=RunCheckpointer(checkpoints, every=2),
    )
  message = str(raised.value)
  assert "the loss of step 3 is " in message
  assert "that of 'backbone/blocks/1/kernel'" in message
  assert f"{tmp_path}: step 2." in message
  assert checkpoints.steps == [2]


@pytest.mark.parametrize("compact", [False, True])
def test_skipped_steps_leave_no_trace(compact):
  """As if they had not been: no weight, no moment, no episode moves."""
  spoiled = fit([0, 1, 2, 0, 0, 2, 0], compact=compact, skip=2)
  without = fit([0, 0, 0, 0], compact=compact)
  assert spoiled.stats.skipped_steps == 3
  assert without.stats.skipped_steps == 0
  for ours, theirs in zip(
    jax.tree.leaves(loop.weights_of(spoiled.model)),
    jax.tree.leaves(loop.weights_of(without.model)),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
  assert np.isinf(spoiled.losses[1])
  good = spoiled.losses[[0, 3, 4, 6]]
  np.testing.assert_allclose(good, without.losses, rtol=1e-6)


def test_too_many_in_a_row_stop_the_run():
  with pytest.raises(FloatingPointError, match="the loss of step 3 is inf"):
    fit([0, 1, 1, 1, 0], skip=2)


def test_what_may_be_skipped_is_checked():
  with pytest.raises(ValueError, match=r"skip_nonfinite must be .* got -1"):
    fit([0], skip=-1)
