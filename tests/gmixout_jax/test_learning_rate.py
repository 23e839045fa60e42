"""Tests `gmixout_jax/learning_rate.py` against runs whose end is known."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx


def far(learning_rate, full_finetuning_lr, resample_every):
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    gx.check_gmixout_learning_rate(
      learning_rate,
      full_finetuning_lr=full_finetuning_lr,
      resample_every=resample_every,
    )
  return [str(warning.message) for warning in caught]


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


# PACS from sketches at 96 pixels, 300 steps, where full fine-tuning has 1e-4;
# and digits, where it has 1e-3 (experiments/results/study_rule_cpu.jsonl).
@pytest.mark.parametrize(
  ("learning_rate", "full_finetuning_lr", "resample_every", "warned"),
  [
    (3e-4, 1e-4, 10, False),  # 80 % in distribution
    (1e-3, 1e-4, 10, False),  # 76 %, and more out of distribution
    (1e-3, 1e-4, 50, True),  # 25 %: it collapsed
    (1e-1, 1e-3, 10, True),  # digits: 51 % where 1e-2 has 98 %
    (3e-2, 1e-3, 50, True),  # digits: 72 % where 1e-2 has 95 %
    (1e-1, 1e-3, 1, False),  # digits: 98 %, the best
    (1.5e-2, 3e-4, 1, False),  # PACS from cartoons: 82 %, the best of all
    (3e-2, 1e-3, 3, False),  # digits: 97 %, the best
    (1e-5, 1e-4, 10, True),
  ],
)
def test_what_failed_is_warned_of(
  learning_rate, full_finetuning_lr, resample_every, warned
):
  assert bool(far(learning_rate, full_finetuning_lr, resample_every)) == warned


def test_a_warning_names_both_rates_and_what_to_expect():
  (above,) = far(1e-2, 1e-4, 10)
  assert "is 0.01" in above
  assert "suggest 0.0005" in above
  assert "run away" in above
  (below,) = far(1e-6, 1e-4, 10)
  assert "hardly move" in below


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_rates_must_be_positive(bad):
  with pytest.raises(
    ValueError, match=f"full_finetuning_lr must be .* got {bad}"
  ):
    gx.gmixout_learning_rate(bad)
  with pytest.raises(ValueError, match=f"learning_rate must be .* got {bad}"):
    gx.check_gmixout_learning_rate(bad, full_finetuning_lr=1.0)
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


def test_of_schedules_the_peaks_are_compared():
  full = optax.warmup_cosine_decay_schedule(0.0, 1e-4, 500, 1000)
  own = optax.linear_schedule(0.0, 1e-2, 100)
  (above,) = far(own, full, 10)
  assert "is 0.01, but 0.0001 for full" in above
  assert far(gx.gmixout_learning_rate(full), full, 10) == []
  assert far(5e-4, full, 10) == []
  assert far(lambda step: 5e-4, optax.constant_schedule(1e-4), 10) == []
  # Where the search ends before the peak, less is found: 4e-4 in five steps.
  gx.check_gmixout_learning_rate(
    own, full_finetuning_lr=1e-4, resample_every=10, steps=5
  )


def test_schedules_can_be_checked_while_something_is_traced():
  @jax.jit
  def traced(x):
    gx.check_gmixout_learning_rate(
      optax.constant_schedule(1.0), full_finetuning_lr=1e-3
    )
    return x

  with pytest.warns(UserWarning, match="run away"):
    traced(1.0)


@pytest.mark.parametrize("bad", ["1e-4", None, True, [1e-4]])
def test_what_is_no_rate_is_refused(bad):
  with pytest.raises(ValueError, match=r"full_finetuning_lr must .* got"):
    gx.gmixout_learning_rate(bad)
  with pytest.raises(ValueError, match=r"full_finetuning_lr must .* got"):
    gx.check_gmixout_learning_rate(1.0, full_finetuning_lr=bad)


def test_a_schedule_that_stays_at_zero_is_refused():
  with pytest.raises(ValueError, match=r"learning_rate's peak must .* 0\.0"):
    gx.check_gmixout_learning_rate(lambda step: 0.0, full_finetuning_lr=1e-4)
  with pytest.raises(ValueError, match=r"resample_every must be .* <function"):
    gx.gmixout_learning_rate(1e-4, resample_every=lambda episode: 10)
  with pytest.raises(ValueError, match="steps must be an integer >= 1, got 0"):
    gx.check_gmixout_learning_rate(1.0, full_finetuning_lr=1.0, steps=0)
