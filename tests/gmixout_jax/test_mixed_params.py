"""Tests `gmixout_jax/mixed_params.py`: the same weights as with `gmixout`.

Which other tests check against NumPy.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from tests.combinations import tried
from tests.gmixout_jax.mixed_runs import (
  INNER,
  PARAMS,
  RULES,
  SAMPLERS,
  STEPS,
  assert_close,
  assert_same_end,
  assert_same_trajectory,
  create,
  run_mixed,
  run_transform,
  shown_by_accessors,
  shown_by_mixed,
  trajectory_of_gmixout,
  trajectory_of_mixed,
  transform,
)


@pytest.mark.parametrize(
  ("inner", "sampler", "residual"),
  tried(
    [
      *(("adamw", sampler, "reset") for sampler in SAMPLERS),
      *(("sgd", sampler, "keep") for sampler in SAMPLERS),
    ],
    # Uniform masks are packed as Bernoulli's, which do not fill their slots.
    lambda _, sampler, residual: (
      sampler != "uniform" and (sampler == "neuron") == (residual == "keep")
    ),
  ),
)
def test_the_trajectory_is_that_of_gmixout(inner, sampler, residual):
  theirs, _, state = trajectory_of_gmixout(inner, sampler, residual)
  ours, mixed, _ = trajectory_of_mixed(inner, sampler, residual)
  assert_same_trajectory(ours, theirs)
  assert_close(mixed.anchor, state.anchor)
  assert int(mixed.count) == STEPS


@pytest.mark.parametrize(
  ("inner", "sampler", "residual"),
  [("adamw", "stratified", "reset"), ("sgd", "neuron", "keep")],
)
def test_its_accessors_show_what_those_of_gmixout_show(
  inner, sampler, residual
):
  _, params, state = trajectory_of_gmixout(inner, sampler, residual)
  _, mixed, _ = trajectory_of_mixed(inner, sampler, residual)
  assert_same_end(mixed, params, state)
  evaluated = shown_by_mixed(mixed)[0]["blocks"][0]["kernel"]
  trained = mixed.params["blocks"][0]["kernel"]
  assert np.abs(evaluated - trained).max() > 1e-3  # in mid-episode


@pytest.mark.parametrize(
  "setting",
  [
    {
      "resample_every": lambda episode: 1.0 + episode,
      "anchor_decay": lambda episode: 0.5 / (1.0 + episode),
    },
    {
      "resample_every": None,
      "rescale": False,
      "key": jax.random.key(2),
    },
  ],
  ids=["schedules", "fixed"],
)
def test_its_arguments_mean_what_they_mean_for_gmixout(setting):
  theirs, *end = run_transform(transform(INNER["adamw"], **setting))
  ours, mixed, _ = run_mixed(create(PARAMS, **setting), INNER["adamw"])
  assert_same_trajectory(ours, theirs)
  assert_same_end(mixed, *end)


def test_rules_are_a_partition():
  adamw = INNER["adamw"]
  tx = optax.partition(
    {
      "mixed": transform(adamw, target=None),
      "dense": adamw,
      "frozen": optax.set_to_zero(),
    },
    functools.partial(gx.gmixout_labels, rules=RULES),
  )
  theirs, params, their_state = run_transform(tx)
  ours, mixed, state = run_mixed(create(PARAMS, target=RULES), adamw)
  assert_same_trajectory(ours, theirs)
  evaluated, mask = shown_by_mixed(mixed)
  expected, expected_mask = shown_by_accessors(their_state, params)
  assert_close(evaluated, expected)
  # The partition hides the head from gmixout, which then says that it does not
  # train it.
  expected_mask["head"] = jax.tree.map(jnp.ones_like, mask["head"])
  jax.tree.map(np.testing.assert_array_equal, mask, expected_mask)
  for before, after in zip(
    PARAMS["blocks"], mixed.params["blocks"], strict=True
  ):
    np.testing.assert_array_equal(before["bias"], after["bias"])
  for leaf in ours["head"].values():
    assert np.abs(np.diff(leaf, axis=0)).max() > 1e-3
  # Adam's count, and two moments of what trains, packed where it is mixed.
  trained = [(12, 6), (20, 5), (16, 3), (3,)]
  shapes = sorted(leaf.shape for leaf in jax.tree.leaves(state))
  assert shapes == sorted([(), *trained, *trained])
