"""The cases of papers' experiments: what each trains on, and for how long."""

import itertools

import pytest

from experiments import configs
from experiments.data import five_sets
from experiments.data.decode import View
from experiments.task_options import TaskOptions
from experiments.tasks.experiment import Experiment


def test_sizes_are_parts_of_each_other_and_never_what_is_held_out(imagenet):
  experiment = configs.load("imagenet_sizes")
  view = View(8)
  rows = [
    (set(sets.source.train.rows), set(sets.source.validation.rows))
    for case in experiment.cases(imagenet)
    for sets in [experiment.open(imagenet, view, case, 1)]
  ]
  sizes = [len(train) for train, _ in rows]
  assert sizes == [3, 3, 3, 6, 27]
  for (small, held), (large, other) in itertools.pairwise(rows):
    assert small <= large
    assert held == other
    assert not large & held


def test_the_case_decides_batch_and_steps(domainbed, vit_file):
  view = View(8)
  for name, steps in (
    ("domainbed_very_large_dropout", (10_000, 30_000)),
    ("domainbed_diwa", (5_000, 15_000)),
    ("domainbed_high_rate_mixout", (5_000, 15_000)),
  ):
    experiment = configs.load(name)
    assert len(experiment.cases(domainbed)) == 8
    for case, wanted in zip(("PACS/art", "domain_net/art"), steps, strict=True):
      # 32 of each of three domains
      assert experiment.sizes(domainbed, case) == (96, wanted)
      setup = experiment.setup(domainbed, case)
      assert (setup["batch_size"], setup["steps"]) == (96, wanted)
      sets = experiment.open(domainbed, view, case, 0)
      assert sets.balanced
      assert set(sets.source.train.domains) == {1, 2, 3}
      task = TaskOptions(backbone=vit_file, root=domainbed)
      config = task.case_of(experiment, name, case).config
      assert (config["batch_size"], config["steps"]) == (96, wanted)
      assert config["data"] == f"{name}/{case}"


def test_what_is_asked_for_stands_in_place_of_the_experiments_own(
  imagenet, vit_file
):
  experiment = configs.load("imagenet")

  def config(**asked):
    options = TaskOptions(backbone=vit_file, root=imagenet, **asked)
    return options.case_of(experiment, "imagenet", "all").config

  own = config()
  assert own["epochs"] == experiment.epochs
  assert own["batch_size"] == experiment.batch_size
  assert own["image_size"] == experiment.view.size
  assert own["warmup"] == experiment.warmup
  asked = config(steps=3, batch_size=7, image_size=16, warmup=0.0)
  assert asked == {k: v for k, v in own.items() if k != "epochs"} | {
    "steps": 3,
    "batch_size": 7,
    "image_size": 16,
    "warmup": 0.0,
  }
  assert config(epochs=0.5) == own | {"epochs": 0.5}


def test_five_sets_name_what_is_missing(tmp_path):
  with pytest.raises(FileNotFoundError, match="one or more of PACS, VLCS"):
    five_sets.cases(tmp_path)


def test_epochs_become_steps(domainnet, vit_file, mlp):
  experiment = configs.load("domainnet_sketch")
  options = TaskOptions(
    backbone=vit_file, root=domainnet, image_size=16, batch_size=5, epochs=2
  )
  opened = options.case_of(experiment, "domainnet_sketch", "all").open(0)
  assert len(opened.source.train) == 12
  assert opened.steps == 5  # of 4.8
  fields = {"open": None, "methods": (), "epochs": 2.0}
  assert Experiment(**fields).setup(domainnet, "all")["epochs"] == 2.0
  with pytest.raises(ValueError, match="either epochs or steps"):
    Experiment(**fields, steps=3)
  with pytest.raises(ValueError, match="another one neither"):
    Experiment(**fields, combines=True)
