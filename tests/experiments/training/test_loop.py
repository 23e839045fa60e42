import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.data.batches import batches, stream
from experiments.methods import Method
from experiments.methods.gmixout import GMixout
from experiments.methods.schedule import Schedule
from experiments.training import loop
from experiments.training.stats import Stats
from tests.experiments import tiny

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Adam(Method):
  rate: float = 1e-2

  def transform(self, params, schedule, key):
    return optax.adam(schedule(self.rate))


def weights(model):
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def fit(method, steps=4, data_seed=0, key=KEY, batch_size=8, **kwargs):
  dataset = batches(tiny.split(), batch_size=batch_size, seed=data_seed)
  return loop.fit(
    method,
    kwargs.pop("model", None) or tiny.classifier(),
    lambda start: stream(dataset, start, steps),
    steps=steps,
    schedule=Schedule(steps),
    key=key,
    **kwargs,
  )


def test_loss_falls_and_the_given_model_is_unchanged():
  model = tiny.classifier()
  before = jax.tree.map(np.array, weights(model))
  seen = []
  fitted = fit(
    Adam(),
    steps=40,
    batch_size=24,
    model=model,
    progress=lambda *args: seen.append(args),
  )
  # Donated buffers would raise here.
  jax.tree.map(np.testing.assert_array_equal, before, weights(model))
  assert fitted.losses[0] == pytest.approx(np.log(3), rel=1e-5)
  assert fitted.losses[-1] < 0.5 * fitted.losses[0]
  assert [step for step, _ in seen] == list(range(40))
  np.testing.assert_allclose([x for _, x in seen], fitted.losses, rtol=1e-6)
  images, labels = tiny.split().images, tiny.split().labels
  assert np.mean(fitted.model(images).argmax(-1) == labels) > 0.5  # chance: 1/3

  stats = fitted.stats
  sizes = [leaf.size for leaf in jax.tree.leaves(before)]
  assert stats.steps == 40
  # Adam: two moments of every weight, and the counts of Adam and the schedule.
  assert stats.optimizer_bytes == 4 * (2 * sum(sizes) + 2)
  assert 0.9 * sum(sizes) < stats.changed_parameters <= sum(sizes)
  assert stats.steps_per_second > 1 / stats.first_step_seconds > 0


def test_same_seed_same_weights_bit_for_bit():
  first, again = fit(Adam()), fit(Adam())
  np.testing.assert_array_equal(first.losses, again.losses)
  jax.tree.map(
    np.testing.assert_array_equal, weights(first.model), weights(again.model)
  )
  other = fit(Adam(), data_seed=1)
  assert not np.array_equal(other.losses, first.losses)


def test_every_hook_of_the_method_is_called():
  keys = []

  @dataclasses.dataclass(frozen=True)
  class Hooked(Adam):
    def transform(self, params, schedule, key):
      if not isinstance(key, jax.core.Tracer):  # the step makes its own
        keys.append(jax.random.key_data(key).tolist())
      assert params["head"]["kernel"].shape == (16, 3)

      def update(updates, state, params=None, *, value, **extra):
        del params, extra
        zeros = optax.tree.zeros_like(updates)
        return zeros, state + value  # the sum of the losses

      return optax.GradientTransformationExtraArgs(
        lambda params: jnp.zeros(()), update
      )

    def loss(self, model, batch, key):
      assert model(batch["image"]).shape == (8, 3)
      return jax.random.uniform(key)

    def deploy(self, opt_state, params):
      bias = params["head"]["bias"] + opt_state
      return {**params, "head": {**params["head"], "bias": bias}}

  fitted = fit(Hooked())
  assert len(keys) == 1
  assert len(set(fitted.losses.tolist())) == 4  # a fresh key at every step
  np.testing.assert_allclose(
    fitted.model.head.bias[...], np.full(3, fitted.losses.sum()), rtol=1e-6
  )
  assert fitted.stats.changed_parameters == 0
  other = fit(Hooked(), key=jax.random.key(1))
  assert keys[0] != keys[1]
  assert not np.array_equal(fitted.losses, other.losses)


def test_a_method_without_a_transformation_takes_no_step():
  model = tiny.classifier()
  fitted = loop.fit(
    Method(),
    model,
    lambda start: (),
    steps=5,
    schedule=Schedule(5),
    key=KEY,
  )
  assert fitted.model is model
  assert fitted.losses.shape == (0,)
  assert fitted.stats == Stats()


@pytest.mark.parametrize("at", [0, 2, 3])
def test_a_loss_that_is_not_finite_stops_the_run(at):
  @dataclasses.dataclass(frozen=True)
  class Poisoned(Adam):
    def loss(self, model, batch, key):
      loss = model.head.bias[...].sum() ** 2
      return jnp.where(batch["label"][0] == at, jnp.inf, loss)

  poisoned = ({"label": np.array([step])} for step in range(4))
  with pytest.raises(FloatingPointError, match=f"step {at} is inf"):
    loop.fit(
      Poisoned(),
      tiny.classifier(),
      lambda start: poisoned,
      steps=4,
      schedule=Schedule(4),
      key=KEY,
    )


def test_too_few_batches_are_an_error():
  @dataclasses.dataclass(frozen=True)
  class Cheap(Adam):
    def loss(self, model, batch, key):
      return model.head.bias[...].sum() * batch

  for count in (0, 2):
    with pytest.raises(ValueError, match="3 steps need as many batches"):
      loop.fit(
        Cheap(),
        tiny.classifier(),
        lambda start, count=count: itertools.repeat(np.float32(1), count),
        steps=3,
        schedule=Schedule(3),
        key=KEY,
      )


def test_schedule():
  rate = Schedule(200, warmup=0.25)(2.0)
  np.testing.assert_allclose(
    [rate(step) for step in (0, 25, 50, 125, 200)],
    [0, 1, 2, 1, 0],
    atol=1e-6,
  )
  assert Schedule(10, warmup=0)(2.0)(0) == 2
  for steps, warmup, message in (
    (10, -0.1, r"warmup must be in \[0, 1\), got -0.1"),
    (10, 1.0, r"warmup must be in \[0, 1\), got 1.0"),
    (10, 0.99, "warmup must be .* got 0.99 of 10 steps"),
    (0, 0.1, "steps must be at least 1, got 0"),
    (-5, 0.1, "steps must be at least 1, got -5"),
  ):
    with pytest.raises(ValueError, match=message):
      Schedule(steps, warmup)


@pytest.mark.parametrize("compact", [True, False])
def test_live_snapshots_are_the_weights_as_they_train(compact):
  # In the first episode a quarter of a block's matrix is off its anchor, by
  # 1 / (1 − p) = 4 times the residual, of which 1 − λ will be deployed.
  method = GMixout(
    learning_rate=1e-2,
    sparsity=0.75,
    anchor_decay=0.2,
    resample_every=4,
    rescale=True,
    compact=compact,
  )
  model = tiny.filled(tiny.classifier)
  before = weights(model)["backbone"]["blocks"][0]["kernel"]
  moved, ends = {}, []
  for live in (True, False):
    fitted = fit(method, model=model, snapshots=(2, 3), live=live)
    assert [one.step for one in fitted.snapshots] == [2, 3]
    ends.append(weights(fitted.model))
    moved[live] = np.stack(
      [
        one.params["backbone"]["blocks"][0]["kernel"] - before
        for one in fitted.snapshots
      ]
    )
  # Not more, and fewer by those that lead to a dead ReLU.
  assert 0.2 < np.count_nonzero(moved[True][1]) / before.size <= 0.25
  assert not np.array_equal(*moved[True])
  np.testing.assert_allclose(0.8 * moved[True] / 4, moved[False], atol=1e-7)
  # What is kept on the way changes nothing of where the run ends.
  jax.tree.map(np.testing.assert_array_equal, *ends)
