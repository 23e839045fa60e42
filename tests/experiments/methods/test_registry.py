"""Tests what holds of every method, and of those that mix."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

import gmixout_jax as gx
from experiments import methods
from experiments.data.batches import batches, stream
from experiments.methods.composition import Composed
from experiments.methods.gmixout import GMixout
from experiments.methods.high_rate_mixout import HighRateMixout
from experiments.methods.mixout import Mixout, NeuronMixout
from experiments.methods.random_mask import RandomMask
from experiments.methods.schedule import Schedule
from experiments.models import probe
from experiments.training import loop, train_step
from tests.combinations import tried
from tests.experiments import tiny

STEPS = 3


@pytest.fixture(scope="module")
def source():
  return tiny.source()


@pytest.fixture(scope="module")
def probed(source):
  return probe.fit_head(tiny.classifier(), source)


def leaves(model):
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


def train(method, model, source):
  dataset = batches(source.train, batch_size=8, seed=0)
  return loop.fit(
    method,
    model,
    lambda start: stream(dataset, start, STEPS),
    steps=STEPS,
    schedule=Schedule(STEPS, warmup=0),
    key=jax.random.key(0),
  )


@pytest.fixture(scope="module")
def fit(probed, source):
  # Compiling takes the time here, so each configuration is fitted once.
  once = functools.cache(lambda method, packs: train(method, probed, source))
  return lambda method: once(method, getattr(method, "packs", False))


def changed(before, after):
  """How many entries of each leaf differ, where any does."""
  before, after = leaves(before), leaves(after)
  counts = {name: int(np.sum(before[name] != after[name])) for name in before}
  return {name: count for name, count in counts.items() if count}


def mixed(model):
  return {name for name in leaves(model) if is_mixed(name)}


def is_mixed(name):
  return name.startswith("backbone/blocks/") and name.endswith("/kernel")


def test_registry():
  with pytest.raises(ValueError, match="Method is not in METHODS"):
    methods.name_of(methods.Method())
  for name, cls in methods.METHODS.items():
    assert cls.__module__.startswith("experiments.methods.")
    assert methods.name_of(cls()) == name
    assert methods.from_name(name) == cls()
    hash(cls())  # members are looked up by it
    with pytest.raises(dataclasses.FrozenInstanceError):
      cls().learning_rate = 1.0


# Those that work on others hand them the model to prepare.
BASIC = [
  name
  for name, cls in methods.METHODS.items()
  if not issubclass(cls, Composed) and name != "flyp"
]


@pytest.mark.parametrize("name", BASIC)
def test_prepare_touches_the_head_only(name, source):
  model = tiny.classifier()
  method = methods.METHODS[name]()
  prepared = method.prepare(model, source, jax.random.key(0))
  assert not np.any(model.head.kernel[...])
  expected = set() if name == "zero_shot" else {"head/kernel", "head/bias"}
  assert set(changed(model, method.export(prepared))) == expected


def test_a_zero_shot_head_is_kept_unless_the_method_fits_one(source):
  model = tiny.classifier()
  model.head.kernel[...] = np.ones((16, 3), np.float32)
  for name in ("full_finetuning", "gmixout", "linear_probe", "lp_ft"):
    prepared = methods.METHODS[name]().prepare(model, source, jax.random.key(0))
    fitted = name in ("linear_probe", "lp_ft")
    assert bool(changed(model, prepared)) == fitted


@pytest.mark.parametrize("name", ["zero_shot", "linear_probe"])
def test_methods_without_steps(name, probed, fit):
  fitted = fit(methods.METHODS[name]())
  assert fitted.model is probed
  assert fitted.stats.steps == 0


def test_full_finetuning_changes_everything(probed, fit):
  fitted = fit(methods.METHODS["full_finetuning"]())
  assert set(changed(probed, fitted.model)) == set(leaves(probed))


# One episode: GMixout's last mask is its first, a quarter of each matrix. Of
# Mixout's three masks of a quarter each, 1 − 0.75³ = 58 % have learnt, while
# its training weights differ from the pretrained ones in a quarter only. A unit
# that is never active has no gradient, so the lower bounds are loose.
GMIXOUT = GMixout(resample_every=STEPS + 1, sparsity=0.75)
SHARES = {
  GMIXOUT: (0.19, 0.25),
  RandomMask(sparsity=0.5): (0.38, 0.5),
  Mixout(sparsity=0.75): (0.45, 0.65),
}


@pytest.mark.parametrize(
  "method",
  tried(SHARES, lambda method: not isinstance(method, RandomMask)),
  ids=methods.name_of,
)
def test_mixing_methods_change_their_share_and_the_head(method, probed, fit):
  counts = changed(probed, fit(method).model)
  assert len(mixed(probed)) == 2
  assert set(counts) == mixed(probed) | {"head/kernel", "head/bias"}
  low, high = SHARES[method]
  for name in mixed(probed):
    assert low <= counts[name] / leaves(probed)[name].size <= high
  assert counts["head/kernel"] == leaves(probed)["head/kernel"].size


def test_changed_parameters_are_those_of_one_step(probed, fit):
  counts = changed(probed, fit(GMIXOUT).model)
  assert fit(GMIXOUT).stats.changed_parameters == sum(counts.values())


def test_same_key_same_weights_and_one_compilation(probed, source, fit):
  fit(GMIXOUT)
  kept = train_step._compiled.cache_info()
  again = train(GMIXOUT, probed, source)
  assert not changed(fit(GMIXOUT).model, again.model)
  np.testing.assert_array_equal(fit(GMIXOUT).losses, again.losses)
  # A second one would spoil the timing, and with a large model the patience.
  now = train_step._compiled.cache_info()
  assert (now.misses, now.hits) == (kept.misses, kept.hits + 1)


@pytest.mark.parametrize(
  "method",
  tried(SHARES, lambda method: isinstance(method, GMixout)),
  ids=methods.name_of,
)
def test_compact_gives_the_same_weights(method, fit):
  compact = dataclasses.replace(method, sampler="neuron")
  dense = dataclasses.replace(compact, compact=False)
  assert (compact.packs, dense.packs) == (True, False)
  assert compact == dense  # one run for all who ask for either
  compact, dense = fit(compact), fit(dense)
  np.testing.assert_allclose(compact.losses, dense.losses, rtol=1e-5)
  expected = leaves(dense.model)
  for name, leaf in leaves(compact.model).items():
    np.testing.assert_allclose(leaf, expected[name], rtol=1e-4, atol=1e-6)
  assert compact.stats.optimizer_bytes <= dense.stats.optimizer_bytes
  # As many per step, but for weights that rounding puts where they were.
  changed = [fitted.stats.changed_parameters for fitted in (compact, dense)]
  np.testing.assert_allclose(*changed, rtol=0.02)


@pytest.mark.parametrize(
  ("method", "packs"),
  [
    (GMixout(), True),
    (GMixout(sampler="bernoulli"), True),
    (GMixout(moments="reset"), False),
    (GMixout(compact=False), False),
    (RandomMask(), True),
    (Mixout(), False),
    (Mixout(sampler="stratified"), False),
    (NeuronMixout(), True),
    (HighRateMixout(), False),
  ],
  ids=repr,
)
def test_runs_are_packed_where_that_gives_the_same_weights(
  method, packs, probed
):
  params = loop.weights_of(probed)
  packed = method.parametrize(params, jax.random.key(0)) is not params
  assert packed == method.packs == packs


def test_gmixout_evaluates_the_anchor(probed, fit):
  # λ = 1 never moves the anchor, whatever the training weights did.
  fitted = fit(GMixout(anchor_decay=1.0, resample_every=2))
  before, after = leaves(probed), leaves(fitted.model)
  for name in mixed(probed):
    np.testing.assert_allclose(before[name], after[name], atol=1e-7)
  assert {"head/kernel", "head/bias"} <= set(changed(probed, fitted.model))


def test_gmixout_passes_its_hyperparameters_on(monkeypatch):
  seen = {}

  def gmixout(inner, **given):
    seen.update(given)
    return inner

  monkeypatch.setattr(gx, "gmixout", gmixout)
  method = GMixout(
    sparsity=0.8,
    anchor_decay=0.1,
    resample_every=7,
    sampler="uniform",
    moments="reset",  # so it is not packed
  )
  method.transform({}, Schedule(10), jax.random.key(0))
  assert {"key"} ^ set(seen) == {
    field.name
    for field in dataclasses.fields(method)
    if "learning_rate" not in field.name and field.name != "compact"
  }
  assert all(
    seen[name] == getattr(method, name) for name in set(seen) - {"key"}
  )
