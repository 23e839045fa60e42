"""Tests `gmixout_jax/learning_rate.py` against runs whose end is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx


def test_the_rule_scales_with_full_fine_tuning_and_falls_with_the_episode():
  rule = gx.gmixout_learning_rate
  assert rule(1e-4, resample_every=10) == pytest.approx(5e-4)
  assert rule(3e-4, resample_every=10) == pytest.approx(1.5e-3)
  ratio = rule(1.0, resample_every=80) / rule(1.0, resample_every=10)
  assert ratio == pytest.approx(0.5)
  assert rule(1.0) == rule(1.0, resample_every=10)
  rates = [rule(1.0, resample_every=k) for k in (1, 3, 9, 10, 11, 50)]
  assert rates == sorted(rates, reverse=True)
  assert rates[2] / rates[4] < 1.15  # one rule, without a step


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_rates_must_be_positive(bad):
  with pytest.raises(
    ValueError, match=f"full_finetuning_lr must be .* got {bad}"
  ):
    gx.gmixout_learning_rate(bad)
  with pytest.raises(ValueError, match="resample_every must be"):
    gx.gmixout_learning_rate(1.0, resample_every=bad)


def test_a_schedule_gives_a_schedule():
  cosine = optax.warmup_cosine_decay_schedule(0.0, 1e-4, 10, 100)
  found = gx.gmixout_learning_rate(full_finetuning_lr=cosine, resample_every=1)
  steps = jnp.arange(120)
  expected = 50 * np.asarray(cosine(steps), np.float64)
  np.testing.assert_allclose(jax.jit(found)(steps), expected, rtol=1e-6)
  assert found(0) == 0
  # Optax takes it for what it is, inside of jit as well.
  tx = optax.sgd(gx.gmixout_learning_rate(cosine))
  state = tx.init(jnp.ones(1))
  for step in range(3):
    update, state = jax.jit(tx.update)(jnp.ones(1), state)
    np.testing.assert_allclose(update, -5 * cosine(step), rtol=1e-6)


def test_a_number_and_a_constant_schedule_agree():
  for k in (1, 7, 10, 50):
    number = gx.gmixout_learning_rate(3e-4, resample_every=k)
    schedule = gx.gmixout_learning_rate(
      optax.constant_schedule(3e-4), resample_every=k
    )
    assert schedule(17) == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize("bad", ["1e-4", None, True, [1e-4]])
def test_what_is_no_rate_is_refused(bad):
  with pytest.raises(ValueError, match=r"full_finetuning_lr must .* got"):
    gx.gmixout_learning_rate(bad)


def test_the_steps_of_an_episode_are_a_number():
  with pytest.raises(ValueError, match=r"resample_every must be .* <function"):
    gx.gmixout_learning_rate(1e-4, resample_every=lambda episode: 10)
