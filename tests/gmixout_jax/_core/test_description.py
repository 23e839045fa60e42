"""Tests `gmixout_jax/_core/description.py`: which saved states go on."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from gmixout_jax._core import description, samplers

PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 320).reshape(8, 40)}


def dense(**settings):
  """A transformation's state, and how it goes on."""
  settings = {"resample_every": 5} | settings
  tx = gx.gmixout(optax.adam(0.1), key=0, **settings)

  def steps(carry, count):
    params, state = carry
    for _ in range(count):
      updates, state = tx.update(params, state, params)
      params = optax.apply_updates(params, updates)
    return params, state

  return (PARAMS, tx.init(PARAMS)), steps


def packed(**settings):
  """The same from packed gradients."""
  tx = optax.adam(0.1)
  mixed = gx.MixedParams.create(PARAMS, key=0, resample_every=5, **settings)
  loss = lambda params: 0.5 * jnp.sum(params["kernel"] ** 2)

  @jax.jit
  def step(mixed, opt_state):
    _, grads = mixed.value_and_grad(loss)()
    return mixed.apply_gradients(tx, grads, opt_state)

  def steps(carry, count):
    for _ in range(count):
      carry = step(*carry)
    return carry

  return (mixed, tx.init(mixed.trainable())), steps


@pytest.mark.parametrize("form", [dense, packed])
def test_what_flax_saves_goes_on_to_the_same_bits(form):
  start, steps = form()
  content = flax.serialization.to_bytes(steps(start, 7))
  restored = flax.serialization.from_bytes(start, content)
  expected, found = steps(start, 10), steps(restored, 3)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for ours, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("form", [dense, packed])
@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"sparsity": 0.8}, r"'kernel' has an anchor of shape \(8, 4\) there and"),
    ({"rescale": False}, "after 7 steps.*rescale is True there and False here"),
    ({"sampler": "neuron", "sparsity": 0.875}, "'kernel' has an anchor of"),
  ],
)
def test_other_settings_are_refused(form, settings, message):
  start, steps = form()
  content = flax.serialization.to_bytes(steps(start, 7))
  other, _ = form(**settings)
  with pytest.raises(ValueError, match=message):
    flax.serialization.from_bytes(other, content)


def test_at_an_episodes_end_settings_may_change():
  start, steps = dense()
  other, others_steps = dense(rescale=False)
  content = flax.serialization.to_bytes(steps(start, 5))
  params, state = flax.serialization.from_bytes(other, content)
  assert int(state.count) == 5
  moved, _ = others_steps((params, state), 1)
  assert not np.array_equal(moved["kernel"], params["kernel"])


@pytest.mark.parametrize("every", [10, 3, None])
def test_an_episode_must_begin_by_the_new_settings_too(every):
  start, steps = dense()
  other, _ = dense(resample_every=every)
  content = flax.serialization.to_bytes(steps(start, 5))
  message = f"after 5 steps.*resample_every is 5 there and {every} here"
  with pytest.raises(ValueError, match=message):
    flax.serialization.from_bytes(other, content)
  content = flax.serialization.to_bytes(steps(start, 30))
  if every is not None:
    flax.serialization.from_bytes(other, content)


def test_a_schedule_must_give_the_episode_the_length_that_it_had():
  start, steps = dense(resample_every=lambda episode: 10)
  other, _ = dense(resample_every=lambda episode: 6)
  content = flax.serialization.to_bytes(steps(start, 4))
  flax.serialization.from_bytes(start, content)
  # By the other one an episode would begin here, at the end of ten less six.
  with pytest.raises(ValueError, match="episode_steps is 10 there and 6 here"):
    flax.serialization.from_bytes(other, content)


def test_another_precision_or_kind_of_period_is_named():
  narrow = {"kernel": PARAMS["kernel"].astype(jnp.bfloat16)}
  wide, tx = PARAMS, gx.gmixout(optax.adam(0.1), key=0)
  for saved, wanted, message in (
    (narrow, wide, "of float32 here, .* for weights of low precision"),
    (wide, narrow, "of low precision here, .* for weights of float32"),
  ):
    content = flax.serialization.to_bytes(tx.init(saved))
    with pytest.raises(ValueError, match=message):
      flax.serialization.from_bytes(tx.init(wanted), content)
  (_, number), _ = dense()
  (_, schedule), _ = dense(resample_every=lambda episode: 5)
  for saved, wanted, here in (
    (number, schedule, "a schedule here, and was a number"),
    (schedule, number, "a number here, and was a schedule"),
  ):
    content = flax.serialization.to_bytes(saved)
    with pytest.raises(ValueError, match=f"resample_every is {here}"):
      flax.serialization.from_bytes(wanted, content)


@pytest.mark.parametrize("form", [dense, packed])
def test_masks_of_another_version_are_refused(form, monkeypatch):
  start, steps = form(sampler="uniform")
  seven, five = (flax.serialization.to_bytes(steps(start, n)) for n in (7, 5))
  monkeypatch.setitem(samplers.MASK_DISTRIBUTION, "uniform", 3)
  message = "'kernel'.*'uniform'.*mask_distribution is 2 there and 3 here"
  with pytest.raises(ValueError, match=message):
    flax.serialization.from_bytes(start, seven)
  flax.serialization.from_bytes(start, five)


def test_a_state_of_0_1_0_has_no_description():
  for sampler, refused in (("uniform", True), ("stratified", False)):
    start, steps = dense(sampler=sampler)
    saved = flax.serialization.to_state_dict(steps(start, 7))
    del saved["1"]["description"]
    if refused:
      with pytest.raises(
        ValueError, match="mask_distribution is 1 there and 2"
      ):
        flax.serialization.from_state_dict(start, saved)
    else:
      flax.serialization.from_state_dict(start, saved)


def test_a_field_that_is_missing_is_named():
  start, _ = dense()
  saved = flax.serialization.to_state_dict(start)
  del saved["1"]["learned"]
  with pytest.raises(ValueError, match="'learned' is missing"):
    flax.serialization.from_state_dict(start, saved)


def test_mixouts_masks_are_in_its_weights():
  """So a state of it goes on with other masks before its first step only."""
  tx = gx.mixout(optax.sgd(0.1), key=0)
  state = tx.init(PARAMS)
  changed = description.describe(state) | {"mask_distribution": 0}
  description.check_resumable(changed, state)
  _, state = tx.update(PARAMS, state, PARAMS)
  with pytest.raises(ValueError, match="after 1 steps, by sampler 'neuron'"):
    description.check_resumable(changed, state)
