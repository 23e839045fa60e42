"""Tests which methods `experiments/sweep.py` chooses, with which settings."""

import pytest

from experiments import configs, methods, sweep
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.model_soups import UniformSoup
from experiments.methods.wise_ft import WiseFT
from tests.experiments import tiny


def config(*names, **changes):
  return sweep.Config(methods=names, **changes)


def test_names_and_settings():
  given = config(
    "gmixout+wise_ft",
    "full_finetuning",
    set=(
      "gmixout.sparsity=0.5",
      "wise_ft.alpha=0.1",
      "gmixout.sampler=uniform",
    ),
  )
  mixed = GMixout(sparsity=0.5, sampler="uniform")
  assert sweep.chosen(given) == [WiseFT(of=mixed, alpha=0.1), FullFinetuning()]


def test_of_several_values_every_combination_is_run():
  given = config(
    "full_finetuning",
    "gmixout+wise_ft",
    set=("gmixout.anchor_decay=0,0.3", "wise_ft.alpha=0.5,1"),
  )
  found = sweep.chosen(given)
  assert found == [
    FullFinetuning(),  # once: neither setting is its own
    *(
      WiseFT(of=GMixout(anchor_decay=decay), alpha=alpha)
      for decay in (0.0, 0.3)
      for alpha in (0.5, 1.0)
    ),
  ]
  # A line tells a whole number of this kind as 1.0, whoever gave it.
  assert [type(method.alpha) for method in found[1:]] == [float] * 4
  assert type(found[1].of.anchor_decay) is float
  (soup,) = sweep.chosen(
    config("uniform_soup", set=("uniform_soup.factors=(1,2)",))
  )
  assert repr(soup.factors) == "(1.0, 2.0)"
  assert type(UniformSoup().runs) is type(soup.runs) is int


def test_what_an_experiment_compares_has_its_own_settings():
  own = [FullFinetuning(learning_rate=0.5), GMixout(sparsity=0.8)]
  assert sweep.chosen(config(), own) == own
  named = sweep.chosen(config("gmixout", "lora"), own)
  assert named == [GMixout(sparsity=0.8), methods.from_name("lora")]
  changed = sweep.chosen(config(set=("gmixout.resample_every=1,2",)), own)
  assert changed == [
    own[0],
    GMixout(sparsity=0.8, resample_every=1),
    GMixout(sparsity=0.8, resample_every=2),
  ]


def test_all_are_those_that_the_backbone_allows(clip_folder, vit_file):
  def names(**changes):
    found = sweep.chosen(config("all", "swa", **changes))
    return [methods.name_of(method) for method in found]

  for changes in ({}, {"backbone": vit_file}):
    assert names(**changes) == [
      name for name in methods.METHODS if name not in ("flyp", "zero_shot")
    ]
  assert names(backbone=clip_folder) == list(methods.METHODS)
  # Who names one of them gets it, or an error that says what it needs.
  own = configs.load("demo").methods
  found = [methods.name_of(m) for m in sweep.chosen(config("all"), own)]
  assert set(found) == set(methods.METHODS)
  found = sweep.chosen(config("zero_shot", "all", backbone=vit_file))
  assert methods.name_of(found[0]) == "zero_shot"


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (config(), "which methods"),
    (config("nope"), "'nope' is not one of"),
    (config("swa", set=("swa",)), "NAME.FIELD=VALUE .* got 'swa'"),
    (
      config("swa", set=("swa.every=1", "swa.start=0.5", "swa.every=2")),
      "swa.every is given twice, as 'swa.every=1' and 'swa.every=2'",
    ),
    (config("swa", set=("swa.every=1,2,1",)), "has the value 1 twice"),
    (
      config("swa", "gmixout+ema", set=("swa.every=2", "lora.rank=3,4")),
      "lora.… changes nothing: the methods are swa, gmixout.ema",
    ),
  ],
)
def test_what_is_not_understood_is_quoted(given, message, monkeypatch):
  tiny.use_tiny_task(monkeypatch)
  with pytest.raises(ValueError, match=message):
    sweep.chosen(given)
  with pytest.raises(SystemExit, match=f"error: .*{message}"):
    sweep.main(given)
