"""Tests `experiments/sweep.py`."""

import pytest

from experiments import methods, sweep, train
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.wise_ft import WiseFT
from experiments.reporting import records
from experiments.tasks.recipe import Recipe
from experiments.training import metrics_log
from experiments.training.watching import Watching
from gmixout_jax import clip
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


def test_all_are_those_that_a_vit_allows():
  names = [methods.name_of(m) for m in sweep.chosen(config("all", "swa"))]
  assert names == [name for name in methods.METHODS if name != "flyp"]


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (config(), "which methods"),
    (config("nope"), "'nope' is not one of"),
    (config("swa", set=("swa",)), "NAME.FIELD=VALUE .* got 'swa'"),
  ],
)
def test_what_is_not_understood_is_quoted(given, message):
  with pytest.raises(ValueError, match=message):
    sweep.chosen(given)
  with pytest.raises(SystemExit, match=message):
    sweep.main(given)


def test_a_sweep_is_what_train_would_have_written(
  monkeypatch, tmp_path, capsys
):
  domains = {
    "sketch": tiny.split(per_class=9),
    "photo": tiny.split(seed=1),
  }
  model = tiny.classifier()
  monkeypatch.setattr(train, "load", lambda config: (domains, model))
  path = tmp_path / "results.jsonl"
  data = train.Data(batch_size=4)
  sweep.main(
    config(
      "full_finetuning",
      "uniform_soup",
      set=("uniform_soup.runs=2",),
      data=data,
      steps=3,
      seeds=(0, 1),
      results=path,
    )
  )
  lines = records.read(path)
  assert [(x["config"]["method"]["name"], x["seed"]) for x in lines] == [
    (name, seed)
    for seed in (0, 1)
    for name in ("full_finetuning", "uniform_soup")
  ]
  shown = capsys.readouterr().out
  assert "Uniform soup" in shown
  assert "forward passes per image" in " ".join(shown.split())
  single = train.run(
    train.Config(method=FullFinetuning(), data=data, steps=3, seed=1),
    domains,
    model,
  )
  assert single["losses"] == lines[2]["losses"]
  assert single["metrics"] == lines[2]["metrics"]
  assert single["config"] == lines[2]["config"]
  soup = lines[3]
  assert soup["stats"]["runs"] == 2
  assert soup["losses"][:3] == single["losses"]


def test_cells_share_the_recipe_and_log_apart(monkeypatch, tmp_path):
  domains = {"sketch": tiny.split(per_class=9), "photo": tiny.split(seed=1)}
  monkeypatch.setattr(
    train, "load", lambda config: (domains, tiny.classifier())
  )
  given = config(
    "full_finetuning",
    "uniform_soup",
    set=("uniform_soup.runs=2",),
    data=train.Data(batch_size=4),
    epochs=0.5,
    results=tmp_path / "results.jsonl",
    training=Recipe(label_smoothing=0.2),
    watching=Watching(log_dir=tmp_path / "log"),
  )
  cells = sweep.configurations(given, sweep.chosen(given), seed=3)
  assert [cell.watching.log_dir for cell in cells] == [
    tmp_path / "log" / f"{name}-seed3"
    for name in ("full_finetuning", "uniform_soup")
  ]
  assert all(cell.training == given.training for cell in cells)
  sweep.main(given)
  lines = records.read(given.results)
  assert [line["config"]["label_smoothing"] for line in lines] == [0.2, 0.2]
  for run, losses in (
    ("run_00", lines[0]["losses"]),
    ("run_01", lines[1]["losses"][3:]),
  ):
    logged = metrics_log.read(tmp_path / "log/seed0" / run / "metrics.jsonl")
    assert [round(line["loss"], 5) for line in logged] == losses
    assert len(losses) == 3  # half an epoch of 21 images


@pytest.fixture
def files(tmp_path):
  weights = tmp_path / "vit.safetensors"
  clip.vit_to_safetensors(tiny.vit(width=64, heads=1), weights)
  data = train.Data(tiny.domainbed(tmp_path / "PACS"), image_size=16)
  out = tmp_path / "out"
  return {
    "data": data,
    "weights": weights,
    "results": out / "results.jsonl",
    "checkpoint": out / "sweep",
  }


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cell_that_fails_is_reported_and_stops_no_other(
  files, workers, capsys
):
  # Stratified masks of a sparsity so high keep no entry of some matrix.
  given = config(
    "gmixout",
    "zero_shot",
    set=("gmixout.sparsity=0.999999",),
    workers=workers,
    steps=2,
    **files,
  )
  with pytest.raises(SystemExit, match="1 cells failed"):
    sweep.main(given)
  (line,) = records.read(files["results"])
  assert line["config"]["method"]["name"] == "zero_shot"
  shown = capsys.readouterr().out.replace("\n", "")
  assert "failed: gmixout-seed0, see" in shown
  log = shown.split("see ")[1].split()[0]
  assert "is too small to keep one" in " ".join(shown.split())
  assert log.endswith((".log", ".err"))


def test_a_sweep_that_was_interrupted_goes_on(files, monkeypatch):
  given = config("zero_shot", "linear_probe", seeds=(0, 1), steps=2, **files)
  record, done = train.record, []

  def dying(one, *rest):
    if len(done) == 2:
      raise KeyboardInterrupt
    done.append(sweep.name_of(one))
    return record(one, *rest)

  monkeypatch.setattr(train, "record", dying)
  with pytest.raises(KeyboardInterrupt):
    sweep.main(given)
  assert len(records.read(files["results"])) == 2
  first = list(done)
  done.clear()
  sweep.main(given)
  assert sorted(first + done) == sorted(
    f"{name}-seed{seed}"
    for name in ("zero_shot", "linear_probe")
    for seed in (0, 1)
  )
  assert len(records.read(files["results"])) == 4
  sweep.main(given)  # nothing is left
  assert len(records.read(files["results"])) == 4


def test_seeds_are_wanted():
  with pytest.raises(SystemExit, match=r"seeds must be one or more .* none"):
    sweep.main(config("swa", seeds=()))


def test_workers_are_checked():
  with pytest.raises(SystemExit, match="got 2 and --checkpoint None"):
    sweep.main(config("swa", workers=2))
  with pytest.raises(SystemExit, match="got -1"):
    sweep.main(config("swa", workers=-1))
