"""Tests `experiments/study/__main__.py`."""

import pytest
import rich.console

from experiments.methods.linear_probe import LinearProbe
from experiments.reporting import records
from experiments.study import __main__ as study
from experiments.study import plan, scales
from tests.experiments.study.settings import Tiny


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
  rates = records.read(config.results / "study_rates_cpu.jsonl")
  assert {record["seed"] for record in rates} == {plan.RATES_SEED}
  assert {record["config"]["data"] for record in rates} == {"source"}
  accuracy = {
    record["config"]["method"]["learning_rate"]: record["metrics"]["id"]
    for record in rates
  }
  assert len(accuracy) == 3
  lines = records.read(config.results / "study_targets_cpu.jsonl")
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
