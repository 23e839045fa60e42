"""Tests `experiments/study`."""

import dataclasses
import time

import numpy as np
import pytest
import rich.console
import rich.progress

from experiments import domains, methods, probe, results
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.model_soups import UniformSoup
from experiments.methods.wise_ft import WiseFT
from experiments.runs import Task
from experiments.study import __main__ as study
from experiments.study import choose, plan, rule, scales, tasks, work
from experiments.study.tasks import Digits, Domains, Loaded
from gmixout_jax import clip
from gmixout_jax.folders import exclusive
from tests.experiments import tiny

FULL = FullFinetuning(learning_rate=1e-3)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
  folder = tmp_path_factory.mktemp("study")
  weights = folder / "vit.safetensors"
  clip.vit_to_safetensors(tiny.vit(width=64, heads=1), weights)
  root = tiny.domainbed(folder / "PACS")
  data = domains.Data(root, source="photo", image_size=16, batch_size=4)
  return Domains(data, weights, steps=2)


@dataclasses.dataclass(frozen=True)
class Tiny:
  """A setting whose model compiles in no time."""

  name: str = "tiny"

  def load(self, seed):
    source = tiny.source()
    task = Task(tiny.classifier(), source, steps=2, batch_size=4, seed=seed)
    return Loaded(task, source.validation, {"away": source.train})

  def described(self):
    return {"data": self.name}


TINY = Tiny()


@pytest.fixture
def desk(tmp_path):
  with rich.progress.Progress(disable=True) as bar:
    yield work.Desk(tmp_path / "results", tmp_path / "locks", bar)


def line(cell, top1, brier=0.5):
  config, seed = choose.identity(cell)
  found = {"details": {"id": {"top1": top1, "brier": brier}}}
  return {"config": config, "seed": seed, "metrics": found}


# --- Tasks ------------------------------------------------------------------


def test_digits_are_reported_on_scans_that_no_choice_has_seen():
  loaded = Digits().load(3)
  assert loaded.task.seed == 3
  source = loaded.task.source
  seen = {
    image.tobytes()
    for part in (source.train, source.validation)
    for image in part.images
  }
  assert len(loaded.held_out) == 449
  assert not seen & {image.tobytes() for image in loaded.held_out.images}
  assert len(loaded.targets) == 8


def test_random_weights_are_of_the_seed_and_a_probe_reads_them(monkeypatch):
  setting, probed = Digits(pretrained=False), []

  def fit_head(model, source):
    assert probe.is_blank(model)
    probed.append(len(source.train))
    return model

  monkeypatch.setattr(tasks.probe, "fit_head", fit_head)
  monkeypatch.setattr(tasks.shifts, "out_of_distribution", lambda test: {})
  assert setting.described() == Digits().described() | {"backbone": "random"}
  one, other, trained = (
    from_.load(seed).task.model.backbone.projection.kernel[...]
    for from_, seed in ((setting, 0), (setting, 1), (Digits(), 0))
  )
  assert one.shape == other.shape == trained.shape
  assert not np.array_equal(one, other)
  assert not np.array_equal(one, trained)
  assert probed == [1078, 1078]


def test_a_source_is_left_out_of_the_targets_and_a_target_of_the_source(pacs):
  alone = pacs.load(0)
  assert sorted(alone.targets) == ["art", "cartoon", "sketch"]
  data = dataclasses.replace(pacs.data, source=None, target="art")
  left_out = dataclasses.replace(pacs, data=data).load(0)
  assert sorted(left_out.targets) == ["art"]
  # Three domains of 15 images, a fifth of each class held out.
  assert len(left_out.task.source.train) == 3 * 12
  assert len(left_out.held_out) == 3 * 3
  target = {image.tobytes() for image in left_out.targets["art"].images}
  for part in left_out.task.source:
    images = part.in_memory().images
    assert not target & {image.tobytes() for image in images}


def test_the_head_is_the_linear_probe_of_the_seed(pacs):
  first, again = pacs.load(0).task.model, pacs.load(0).task.model
  assert np.any(first.head.kernel[...])
  assert again is first  # fitted once for all methods
  other = pacs.load(1).task.model
  assert np.any(other.head.kernel[...] != first.head.kernel[...])


def test_images_to_evaluate_on_are_the_same_for_every_seed(pacs):
  few = dataclasses.replace(pacs, per_domain=4)
  first, second = few.load(0).targets, few.load(1).targets
  for name, split in first.items():
    assert len(split) == 4
    np.testing.assert_array_equal(split.images, second[name].images)


def test_a_smaller_training_set_is_part_of_the_whole(pacs):
  whole = pacs.load(3).task.source
  part = dataclasses.replace(pacs, train_images=5).load(3).task.source
  assert len(part.train) == 5
  known = {image.tobytes() for image in whole.train.images}
  assert {image.tobytes() for image in part.train.images} <= known
  np.testing.assert_array_equal(part.validation.images, whole.validation.images)


def test_a_domain_that_is_not_there_is_named(pacs):
  data = dataclasses.replace(pacs.data, source="clipart")
  with pytest.raises(ValueError, match=r"source must .* 'clipart' .* art, car"):
    dataclasses.replace(pacs, data=data).load(0)


# --- Plan -------------------------------------------------------------------


def test_grids_have_one_size_and_bracket_the_recipe():
  searched = plan.grids((1e-5, 3e-5, 1e-4))
  for name, grid in searched.items():
    assert len(grid.rates) == 3
    assert list(grid.rates) == sorted(grid.rates)
    tried = grid.methods()
    named = {methods.name_of(method) for method in tried}
    assert named == {name.removesuffix("_each_step")}
    assert len(set(tried)) == 3
  lr = [m.learning_rate for m in searched["gmixout"].methods()]
  assert lr == [5e-5, 1.5e-4, 5e-4]
  assert {m.resample_every for m in searched["gmixout"].methods()} == {10}
  patient = searched["gmixout_each_step"].methods()
  assert {m.resample_every for m in patient} == {1}


def test_all_methods_are_compared():
  searched = plan.grids((1e-5, 3e-5, 1e-4))
  chosen = {name: grid.methods()[0] for name, grid in searched.items()}
  compared = [*plan.every(chosen), *plan.of_words(chosen)]
  found = {methods.name_of(m).split("+")[-1] for m in compared}
  assert found == set(methods.METHODS)
  assert len(set(plan.every(chosen))) == len(plan.every(chosen))
  reduced = {methods.name_of(m) for m in plan.reduced(chosen)}
  assert {"gmixout", "full_finetuning", "linear_probe"} <= reduced


def test_rates_are_chosen_with_a_seed_that_is_not_reported():
  for scale in scales.SCALES.values():
    assert plan.RATES_SEED not in scale.seeds
    assert len(scale.seeds) >= 5


# --- Choice -----------------------------------------------------------------


def test_the_most_accurate_rate_is_chosen_and_of_equals_the_calibrated():
  grid = plan.grids((1e-5, 3e-5, 1e-4))["full_finetuning"]
  low, middle, high = grid.methods()
  cells = [plan.Cell(Digits(), m, plan.RATES_SEED) for m in (low, middle, high)]

  def pick(*scores):
    lines = [line(c, *s) for c, s in zip(cells, scores, strict=True)]
    return choose.best(Digits(), grid.methods(), lines)

  assert pick((0.8, 0.1), (0.9, 0.5), (0.7, 0.0)) == middle
  assert pick((0.9, 0.3), (0.9, 0.2), (0.9, 0.4)) == middle
  assert pick((0.9, 0.3), (0.9, 0.2), (0.91, 0.4)) == high
  with pytest.raises(LookupError, match="1e-05"):
    choose.best(Digits(), grid.methods(), [])
  # Where there are images for choosing alone, those decide.
  lines = [line(cell, 0.5) for cell in cells]
  for record, top1 in zip(lines, (0.1, 0.3, 0.2), strict=True):
    own = {"top1": top1, "brier": 0.5}
    record["metrics"]["details"]["validation"] = own
  lines[0]["metrics"]["details"]["id"]["top1"] = 1.0
  assert choose.best(Digits(), grid.methods(), lines) == middle
  # Another seed's line is no evidence.
  other = line(dataclasses.replace(cells[0], seed=0), 1.0)
  with pytest.raises(LookupError):
    choose.best(Digits(), grid.methods(), [other])


def test_on_the_digits_there_are_all_methods():
  searched = plan.grids((1e-4, 3e-4, 1e-3))
  chosen = {name: searched[name].methods()[1] for name in plan.ON_DIGITS}
  assert set(chosen) == set(searched)
  names = [methods.name_of(method) for method in plan.on_digits(chosen)]
  assert set(methods.METHODS) <= set(names)
  assert {name for name in names if "+" in name} == {
    "gmixout+wise_ft",
    "gmixout+very_large_dropout",
    "gmixout+uniform_soup",
  }
  twice = {name for name in names if names.count(name) > 1}
  assert twice == {"gmixout"}  # of which there are two k


def test_a_best_rate_at_the_end_of_its_grid_is_named():
  searched = plan.grids((1e-5, 3e-5, 1e-4))
  chosen = {
    "full_finetuning": searched["full_finetuning"].methods()[2],
    "gmixout": searched["gmixout"].methods()[1],
    "lora": searched["lora"].methods()[0],
  }
  assert choose.edges(searched, chosen) == ["full_finetuning", "lora"]


# --- Work -------------------------------------------------------------------


def test_missing_cells_run_once_and_lines_are_those_of_the_cells(desk):
  wise = WiseFT(of=FULL)
  cells = list(plan.by_seed(TINY, [LinearProbe(), FULL, wise], (0, 1)))
  assert desk.work("x", cells[:2])
  assert len(desk.lines("x")) == 2
  assert not desk.missing("x", cells[:2])
  assert desk.missing("x", cells) == cells[2:]
  assert desk.work("x", cells)
  lines = desk.lines("x")
  assert len(lines) == 6
  assert [choose.line_of(cell, lines)["seed"] for cell in cells] == [
    *(0, 0, 0, 1, 1, 1)
  ]
  for record in lines:
    assert sorted(record["metrics"]["ood"]) == ["away"]
  assert desk.work("x", cells)
  assert desk.lines("x") == lines


def test_what_another_process_runs_is_left_to_it(desk):
  cells = list(plan.by_seed(TINY, [LinearProbe()], (0, 1)))
  with exclusive(desk.locks / work._lock("x", cells[0])):
    assert not desk.work("x", cells)
  assert [record["seed"] for record in desk.lines("x")] == [1]
  assert desk.work("x", cells)


def test_no_cell_is_begun_after_the_deadline(desk):
  cells = list(plan.by_seed(TINY, [LinearProbe()], (0,)))
  late = dataclasses.replace(desk, deadline=time.monotonic() - 1)
  assert not late.work("x", cells)
  assert desk.lines("x") == []


def test_cells_with_runs_in_common_are_run_together():
  soup = UniformSoup(of=FULL, runs=2, factors=(1.0,))
  listed = [LinearProbe(), FULL, FullFinetuning(learning_rate=1.0), soup]
  groups = list(work._shared(list(plan.by_seed(TINY, listed, (0,)))))
  assert [[cell.method for cell in group] for group in groups] == [
    [LinearProbe()],
    [FULL, soup],
    [FullFinetuning(learning_rate=1.0)],
  ]


def test_choices_are_made_on_validation_images_alone(desk, monkeypatch):
  loaded = TINY.load(0)
  held_out = tiny.split(seed=7)
  monkeypatch.setattr(
    Tiny, "load", lambda self, seed: loaded._replace(held_out=held_out)
  )
  cells = [plan.Cell(TINY, LinearProbe(), 0)]
  assert desk.work("x", cells)
  (record,) = desk.lines("x")
  details = record["metrics"]["details"]
  assert sum(details["validation"]["reliability"]["count"]) == len(
    loaded.task.source.validation
  )
  assert sum(details["id"]["reliability"]["count"]) == len(held_out)


# --- The picture ----------------------------------------------------------


def looked_at(variant, scores):
  records = []
  for rate, brier in scores.items():
    method = dataclasses.replace(
      plan.GMixout(learning_rate=rate), **plan.VARIANTS[variant]
    )
    record = line(plan.Cell(Digits(), method, plan.RATES_SEED), 0.5, brier)
    record["metrics"] |= {"id": 0.5, "mean_ood": 0.4}
    records.append(record)
  return records


def test_the_best_rate_is_the_bottom_of_a_parabola():
  # log y = (log x − log 0.004)² has its bottom at 0.004.
  scores = {
    rate: float(np.exp(np.log(rate / 0.004) ** 2))
    for rate in (0.1, 0.001, 0.003, 0.01)
  }
  found = rule.by_variant(looked_at("k 50", scores))
  assert list(found) == ["k 50"]
  assert rule.best_rate(found["k 50"]) == pytest.approx(0.004)
  falling = rule.by_variant(looked_at("k 1", {0.1: 0.1, 0.01: 0.2, 0.03: 0.15}))
  assert rule.best_rate(falling["k 1"]) == pytest.approx(0.1)


def test_a_picture_and_a_table_are_made_of_what_is_there(tmp_path, capsys):
  path = tmp_path / "rule.jsonl"
  for variant in ("as it is", "moments reset, k 50"):
    for record in looked_at(variant, {1e-3: 0.2, 1e-2: 0.1, 1e-1: 0.3}):
      results.append(path, record)
  rule.show(path, tmp_path / "pictures" / "rule.png")
  assert "moments reset" in capsys.readouterr().out
  assert (tmp_path / "pictures" / "rule.png").stat().st_size > 10_000
  other = plan.Cell(Digits(), FULL, 0)
  results.append(path, line(other, 0.5))
  with pytest.raises(ValueError, match="line 7 is of 'full_finetuning'"):
    rule.show(path)


# --- The command ------------------------------------------------------------


def test_a_study_chooses_rates_and_then_runs_its_parts(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(study.Study, "pacs", lambda self, target="", **_: Tiny(
    target or "source"
  ))  # fmt: skip
  monkeypatch.setattr(plan, "BRIEF", ("full_finetuning",))
  monkeypatch.setattr(
    plan, "brief", lambda chosen: [LinearProbe(), *chosen.values()]
  )
  config = study.Config(
    parts=("targets",), results=tmp_path / "results", work=tmp_path / "work"
  )
  study.main(config)
  assert "not complete" not in capsys.readouterr().out
  rates = results.read(config.results / "study_rates_cpu.jsonl")
  assert {record["seed"] for record in rates} == {plan.RATES_SEED}
  assert {record["config"]["data"] for record in rates} == {"source"}
  accuracy = {
    record["config"]["method"]["learning_rate"]: record["metrics"]["id"]
    for record in rates
  }
  assert len(accuracy) == 3
  lines = results.read(config.results / "study_targets_cpu.jsonl")
  assert len(lines) == 2 * len(scales.SCALES["cpu"].seeds)
  for record in lines:
    assert record["config"]["data"] == "sketch"
    rate = record["config"]["method"].get("learning_rate")
    if rate is not None:
      assert accuracy[rate] == max(accuracy.values())


def test_seeds_that_are_given_are_taken(desk):
  console = rich.console.Console()
  assert study.Study(study.Config(), desk, console).scale.seeds[1:]
  given = study.Study(study.Config(seeds=(3,)), desk, console)
  assert given.scale.seeds == (3,)


def test_a_study_without_its_data_says_what_is_missing(tmp_path):
  config = study.Config(
    parts=("sources",), root=tmp_path / "none", results=tmp_path / "results",
    work=tmp_path / "work",
  )  # fmt: skip
  with pytest.raises(SystemExit, match=r"error: no folder .*none"):
    study.main(config)
