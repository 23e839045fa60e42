import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import gmixout_jax as gx
from experiments import loop, methods, probe
from experiments.data.split import batches, stream
from experiments.methods.gmixout import GMixout
from experiments.methods.mixout import Mixout
from experiments.methods.random_mask import RandomMask
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


def fit(method, model, source, steps=STEPS):
  dataset = batches(source.train, batch_size=8, seed=0)
  return loop.fit(
    method,
    model,
    stream(dataset, 0, steps),
    steps=steps,
    schedule=loop.warmup_cosine(steps, warmup=0),
    key=jax.random.key(0),
  )


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
  assert set(methods.METHODS) == {
    *("zero_shot", "linear_probe", "full_finetuning"),
    *("mixout", "gmixout", "random_mask"),
  }
  for name, cls in methods.METHODS.items():
    assert cls.__module__ == f"experiments.methods.{name}"
    assert methods.name_of(cls()) == name
    with pytest.raises(dataclasses.FrozenInstanceError):
      cls().learning_rate = 1.0


@pytest.mark.parametrize("name", methods.METHODS)
def test_prepare_touches_the_head_only(name, source):
  model = tiny.classifier()
  key = jax.random.key(0)
  prepared = methods.METHODS[name]().prepare(model, source, key)
  assert not np.any(model.head.kernel[...])
  expected = set() if name == "zero_shot" else {"head/kernel", "head/bias"}
  assert set(changed(model, prepared)) == expected


@pytest.mark.parametrize("name", methods.METHODS)
def test_what_each_method_changes(name, probed, source):
  method = methods.METHODS[name]()
  fitted = fit(method, probed, source)
  names = set(changed(probed, fitted.model))
  if name in ("zero_shot", "linear_probe"):
    assert names == set()
  elif name == "full_finetuning":
    assert names == set(leaves(probed))
  else:
    assert len(mixed(probed)) == 2
    assert names == mixed(probed) | {"head/kernel", "head/bias"}
  # The same key and data give the same weights, bit for bit.
  assert not changed(fitted.model, fit(method, probed, source).model)


def test_gmixout_changes_what_its_mask_selects(probed, source):
  # One episode: the mask of the first step is that of the last.
  method = GMixout(resample_every=STEPS + 1, sparsity=0.75)
  counts = changed(probed, (fitted := fit(method, probed, source)).model)
  for name in mixed(probed):
    rows, cols = leaves(probed)[name].shape
    assert 0.8 * rows * cols / 4 <= counts[name] <= rows * cols / 4
  assert counts["head/kernel"] == leaves(probed)["head/kernel"].size
  active = sum(leaves(probed)[name].size // 4 for name in mixed(probed))
  head = 3 * 16 + 3
  assert 0.8 * active + head < fitted.stats.trainable_parameters
  assert fitted.stats.trainable_parameters <= active + head


def test_gmixout_deploys_the_anchor(probed, source):
  # λ = 1 never moves the anchor, whatever the live weights did.
  fitted = fit(GMixout(anchor_decay=1.0, resample_every=2), probed, source)
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
    moments="reset",
  )
  method.transform({}, loop.warmup_cosine(10), jax.random.key(0))
  assert {"key"} ^ set(seen) == {
    field.name
    for field in dataclasses.fields(method)
    if "learning_rate" not in field.name
  }
  assert all(
    seen[name] == getattr(method, name) for name in set(seen) - {"key"}
  )


def test_random_mask_deploys_what_it_trained(probed, source):
  counts = changed(probed, fit(RandomMask(sparsity=0.5), probed, source).model)
  for name in mixed(probed):
    half = leaves(probed)[name].size // 2
    assert 0.8 * half <= counts[name] <= half


def test_mixout_deploys_without_swapping(probed, source):
  # Three masks of a quarter each: 1 − 0.75³ = 58 % of the entries have learnt,
  # while the live weights would differ in a quarter only.
  fitted = fit(Mixout(sparsity=0.75), probed, source)
  counts = changed(probed, fitted.model)
  total = sum(leaves(probed)[name].size for name in mixed(probed))
  learnt = sum(counts[name] for name in mixed(probed))
  assert learnt / total > 0.5
