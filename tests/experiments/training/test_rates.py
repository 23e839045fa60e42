"""Learning rates are data of a step: one program, and the same bits."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.data.batches import batches, stream
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.method import Method
from experiments.methods.parametrization import trainable
from experiments.methods.schedule import Schedule
from experiments.methods.swa import SWA
from experiments.training import loop, train_step
from experiments.training.faults import guard
from tests.combinations import EXHAUSTIVE
from tests.experiments import tiny

STEPS = 5
GMIXOUT = GMixout(resample_every=2, learning_rate=3e-2)


def some_batches(start=0):
  return stream(batches(tiny.split(), batch_size=4, seed=0), start, STEPS)


def fit(method, schedule):
  fitted = loop.fit(
    method,
    tiny.classifier(),
    some_batches,
    steps=STEPS,
    schedule=schedule,
    key=jax.random.key(0),
  )
  params = nnx.to_pure_dict(nnx.state(fitted.model, nnx.Param))
  return fitted.losses, jax.tree.leaves(params)


def with_constants(method, transform, key):
  """As `fit`, in a step into which the rates are compiled."""
  transform_key, loss_key = jax.random.split(key)
  graphdef, state, rest = nnx.split(tiny.classifier(), nnx.Param, ...)
  optimizer = guard(transform(transform_key), 0)
  params = method.parametrize(nnx.to_pure_dict(state), transform_key)
  state = params, optimizer.init(trainable(params))
  step = train_step.make_step(method, lambda params: optimizer, graphdef)
  losses = []
  for number, batch in enumerate(some_batches()):
    state, metrics = step(state, batch, rest, np.int32(number), loss_key)
    losses.append(np.asarray(metrics["loss"]))
  return losses, jax.tree.leaves(method.deploy(state[1], state[0]))


def assert_same_bits(ours, theirs):
  np.testing.assert_array_equal(ours[0], theirs[0])
  for leaf, other in zip(ours[1], theirs[1], strict=True):
    np.testing.assert_array_equal(leaf, other)


@EXHAUSTIVE  # in `test_recipe.py` to rounding
@pytest.mark.optimized
def test_a_rate_that_is_data_gives_the_bits_of_optax_with_a_constant():
  method = FullFinetuning(learning_rate=3e-3)
  rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 1, STEPS)
  expected = with_constants(
    method, lambda key: optax.adamw(rate, weight_decay=0.0), jax.random.key(0)
  )
  assert_same_bits(fit(method, Schedule(STEPS, warmup=0.2)), expected)


@EXHAUSTIVE  # above is one shape, and in `test_recipe.py` all
@pytest.mark.optimized
@pytest.mark.parametrize(
  "shapes",
  [["linear"], ["constant", "exponential"]],
)
def test_every_shape_gives_the_bits_of_a_constant(shapes):
  """Together, as they share a program."""
  params = loop.weights_of(tiny.classifier())
  for shape in shapes:
    schedule = Schedule(STEPS, warmup=0.2, shape=shape)
    expected = with_constants(
      GMIXOUT,
      lambda key, schedule=schedule: GMIXOUT.transform(params, schedule, key),
      jax.random.key(0),
    )
    assert_same_bits(fit(GMIXOUT, schedule), expected)


@dataclasses.dataclass(frozen=True)
class PastTheSchedule(Method):
  """Whose rate never meets the schedule."""

  learning_rate: float = 0.1

  def transform(self, params, schedule, key):
    return optax.sgd(self.learning_rate)


@pytest.mark.parametrize(
  ("changes", "programs"),
  [
    ([{"learning_rate": rate} for rate in (1e-3, 1e-2, 0.1)], 1),
    ([{}, {"learning_rate": 1e-3, "head_learning_rate": 1e-3}], 1),
    ([{}, {"sparsity": 0.5}, {"compact": False}], 3),
  ],
)
def test_runs_that_differ_in_rates_alone_share_one_step(changes, programs):
  train_step._compiled.cache_clear()
  found = []
  for change in changes:
    method = dataclasses.replace(GMIXOUT, **change)
    found.append(fit(method, Schedule(STEPS)))
  assert train_step._compiled.cache_info().misses == programs
  for losses, _ in found[1:]:  # and are not the same run
    assert losses[-1] != found[0][0][-1] or programs > 1


def test_a_rate_that_is_no_data_is_part_of_the_step():
  losses = [
    fit(PastTheSchedule(rate), Schedule(STEPS))[0] for rate in (0.1, 0.2)
  ]
  assert losses[0][0] == losses[1][0]
  assert losses[0][-1] != losses[1][-1]


def test_a_constant_rate_inside_is_data_too():
  method = SWA(of=FullFinetuning(learning_rate=1e-2))
  slow = SWA(of=FullFinetuning(learning_rate=1e-4))
  train_step._compiled.cache_clear()
  first, second = (fit(m, Schedule(STEPS))[0] for m in (method, slow))
  assert train_step._compiled.cache_info().misses == 1
  assert first[-1] != second[-1]


def test_a_method_asks_for_as_many_peaks_again():
  schedule = Schedule(STEPS).fresh(peaks=np.ones(1, np.float32))
  schedule(0.1)
  with pytest.raises(ValueError, match=r"asked for 1 peaks before, .* is 0.2"):
    schedule(0.2)
