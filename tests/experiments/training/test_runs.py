"""Tests `training/runs.py`, `methods/validator.py`: who trains, who chooses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import methods
from experiments.methods.composition import Composed
from experiments.methods.diwa import DiWA
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.model_soups import UniformSoup
from experiments.methods.output_ensemble import OutputEnsemble
from experiments.methods.validator import Validator
from experiments.methods.very_large_dropout import VeryLargeDropout
from experiments.methods.wise_ft import WiseFT
from experiments.models import evaluation, probe
from experiments.tasks.task import Opened
from experiments.training import loop
from experiments.training.runs import Runs
from tests.experiments import tiny

STEPS = 4
FULL = FullFinetuning(learning_rate=0.01)
SOUP = UniformSoup(of=FULL, runs=2)
WISE = WiseFT(of=FULL, alpha=0.5)
METHODS = (
  FULL,
  WISE,
  SOUP,
  OutputEnsemble(of=FULL, runs=2),
  DiWA(of=FULL, runs=2, evaluations=2),
)


def task(**changes):
  given = dict(
    model=tiny.classifier(),
    source=tiny.source(),
    steps=STEPS,
    batch_size=8,
    augment="none",
  )
  return Opened(**given | changes)


@pytest.fixture(scope="module")
def trained():
  fits, fit = [], loop.fit
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      loop, "fit", lambda *args, **kw: fits.append(kw) or fit(*args, **kw)
    )
    runs = Runs(task(), METHODS)
    outcomes = {method: runs.outcome(method) for method in METHODS}
  return runs, outcomes, fits


def weights(outcome):
  return loop.weights_of(outcome.model)


def close(actual, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), actual, expected
  )


def test_runs_are_trained_once_and_keep_what_anybody_wants(trained):
  runs, _, fits = trained
  assert runs.planned == SOUP.members()
  assert len(fits) == 2
  assert [sorted(given["snapshots"]) for given in fits] == [[2, 4], [2, 4]]


def test_a_method_sees_its_own_snapshots_whoever_else_wants_others():
  few, many = (DiWA(of=FULL, runs=2, evaluations=count) for count in (1, STEPS))
  alone = Runs(task(), [few]).outcome(few)
  beside = Runs(task(), [many, few]).outcome(few)
  assert beside.cost.evaluations == alone.cost.evaluations
  jax.tree.map(np.testing.assert_array_equal, weights(beside), weights(alone))


def test_wise_ft_starts_from_the_shared_head_and_not_from_zeros(trained):
  runs, outcomes, _ = trained
  probed = loop.weights_of(probe.fit_head(tiny.classifier(), runs.task.source))
  middle = jax.tree.map(
    lambda a, b: (a + b) / 2, probed, weights(outcomes[FULL])
  )
  close(weights(outcomes[WISE]), middle)


def test_an_ensemble_has_the_mean_logits_and_their_cost(trained):
  _, outcomes, _ = trained
  ensemble, single = outcomes[METHODS[3]], outcomes[FULL]
  images = tiny.split().images[:5]
  parts = [model(images) for model in ensemble.model.models]
  np.testing.assert_allclose(
    ensemble.model(images), np.mean(parts, axis=0), rtol=1e-5
  )
  assert ensemble.cost.forward_passes == 2
  size = single.cost.inference_parameters
  assert ensemble.cost.inference_parameters == 2 * size
  close(loop.weights_of(ensemble.model.models[0]), weights(single))
  data = tiny.split()
  right = np.argmax(ensemble.model(data.images), axis=1) == data.labels
  accuracy = evaluation.accuracy(ensemble.model, data, batch_size=8)
  assert accuracy == pytest.approx(right.mean())


def test_the_cost_is_that_of_all_runs(trained):
  _, outcomes, _ = trained
  one, two = outcomes[FULL].cost, outcomes[SOUP].cost
  assert (one.runs, two.runs) == (1, 2)
  assert (one.ingredients, two.ingredients) == (1, 2)
  assert (one.steps, two.steps) == (STEPS, 2 * STEPS)
  assert one.optimizer_bytes == two.optimizer_bytes > 0
  assert one.trained_parameters == two.trained_parameters
  assert two.forward_passes == 1
  assert two.steps_per_second > 0
  diwa = outcomes[METHODS[4]].cost
  assert diwa.evaluations == 4  # two snapshots of two runs
  assert diwa.snapshot_bytes == 4 * 4 * one.inference_parameters
  assert [len(losses) for losses in outcomes[SOUP].losses] == [STEPS] * 2


def test_the_first_run_is_that_of_the_plain_method_and_others_differ(trained):
  _, outcomes, _ = trained
  first, second = outcomes[SOUP].losses
  np.testing.assert_array_equal(first, outcomes[FULL].losses[0])
  assert not np.array_equal(first, second)


def test_the_seed_decides(trained):
  _, outcomes, _ = trained
  again, other = (
    Runs(task(seed=seed), [FULL]).outcome(FULL).losses[0] for seed in (0, 1)
  )
  np.testing.assert_array_equal(outcomes[FULL].losses[0], again)
  assert not np.array_equal(again, other)


def test_methods_are_planned_for():
  runs = Runs(task(), [FULL])
  with pytest.raises(ValueError, match="UniformSoup is not one of the methods"):
    runs.outcome(SOUP)


def test_what_combines_sees_the_validation_split_alone():
  seen = []

  @dataclasses.dataclass(frozen=True)
  class Spy(Composed):
    def transform(self, params, schedule, key):
      return optax.set_to_zero()

    def members(self):
      return (methods.Member(self),)

    def combine(self, runs, validator):
      seen.append(validator.accuracy(runs[0].params))
      seen.append(next(validator.batches(batch_size=99, epochs=1)))
      return super().combine(runs, validator)

  given = task()
  outcome = Runs(given, [Spy()]).outcome(Spy())
  validation = given.source.validation
  accuracy, batch = seen
  assert accuracy == evaluation.accuracy(
    outcome.model, validation, batch_size=256
  )
  assert sorted(batch["label"]) == sorted(validation.labels)
  assert {i.tobytes() for i in batch["image"]} == {
    i.tobytes() for i in validation.images
  }
  assert outcome.cost.evaluations == 1


def test_gmixout_composes():
  mixed = GMixout(learning_rate=0.01, resample_every=2)
  wise = WiseFT(of=mixed)
  dropped = VeryLargeDropout(of=mixed, rate=0.5)
  soup = UniformSoup(of=mixed, runs=2)
  runs = Runs(task(), [mixed, wise, dropped, soup])
  alone = runs.outcome(mixed)
  for method in (wise, dropped, soup):
    outcome = runs.outcome(method)
    blocks = weights(outcome)["backbone"]["blocks"]
    reference = weights(alone)["backbone"]["blocks"]
    assert not np.array_equal(blocks[0]["kernel"], reference[0]["kernel"])
    # What GMixout freezes stays frozen.
    embedding = weights(outcome)["backbone"]["embedding"]["kernel"]
    np.testing.assert_allclose(
      embedding, tiny.classifier().backbone.embedding.kernel[...], rtol=1e-6
    )
  assert len(runs.planned) == 3
  cost = alone.cost
  # Two episodes of a tenth each: more over the run than in a step.
  assert cost.changed_parameters < cost.trained_parameters
  assert cost.trained_parameters <= 2 * cost.changed_parameters


def test_validator_averages_over_uneven_chunks():
  split = tiny.split(per_class=5)  # 15 images in chunks of 4
  model = probe.fit_head(tiny.classifier(), tiny.source())
  params = loop.weights_of(model)
  validator = Validator(model, split, batch_size=4)
  logits = np.asarray(model(split.images), np.float64)
  rows = np.arange(len(split))
  log_sum = np.log(np.exp(logits).sum(1))
  loss = np.mean(log_sum - logits[rows, split.labels])
  assert validator.accuracy(params) == np.mean(logits.argmax(1) == split.labels)
  assert validator.loss(params) == pytest.approx(loss, rel=1e-4)
  assert validator.evaluations == 2
  batch = {"image": split.images, "label": split.labels}
  one = validator.objective(params, jnp.ones([]), batch)
  assert float(one) == pytest.approx(loss, rel=1e-4)
  flat = validator.objective(params, jnp.zeros([]), batch)
  assert float(flat) == pytest.approx(np.log(3), rel=1e-5)
  batches = list(validator.batches(batch_size=4, epochs=2))
  assert [len(b["label"]) for b in batches] == [4] * 6
