"""The published lines of the study are those that its parts ask for."""

import shutil

import pytest

from experiments import sweep
from experiments.reporting import records
from experiments.tasks.digits import FOLDER, Digits
from experiments.tasks.image_task import ImageTask

RESULTS = FOLDER.parent / "results"
WEIGHTS = "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"


@pytest.fixture
def results(tmp_path, monkeypatch):
  """A copy of the files, on which nothing is to be run."""

  def opened(self, seed):
    pytest.fail(f"{self} is run with seed {seed}")

  monkeypatch.setattr(Digits, "open", opened)
  monkeypatch.setattr(ImageTask, "open", opened)
  folder = tmp_path / "results"
  folder.mkdir()
  for file in RESULTS.glob("study_*_cpu.jsonl"):
    shutil.copy(file, folder)
  return folder


def found(monkeypatch, capsys, results, *options, minutes="inf"):
  """Lines by file that the parts ask for, and what is said of them."""
  shown = {}
  monkeypatch.setattr(
    sweep, "_tables", lambda lines: shown.setdefault(len(shown), lines)[:0]
  )
  arguments = ["--config", "study_cpu", "--results", str(results)]
  arguments += ["--minutes", minutes, *options]
  capsys.readouterr()
  sweep.main(sweep.parse(arguments))
  said = capsys.readouterr().out.splitlines()
  lines = [record for own in shown.values() for record in own]
  return lines, [sentence for sentence in said if str(results) in sentence]


def published(*names):
  return [
    record
    for name in names
    for record in records.read(RESULTS / f"study_{name}_cpu.jsonl")
  ]


def same(lines, others):
  key = lambda line: (str(line["config"]["method"]), str(line))
  return sorted(lines, key=key) == sorted(others, key=key)


def test_all_lines_on_digits_are_found_and_nothing_is_run_again(
  results, monkeypatch, capsys
):
  on_digits = ("digits", "ablations", "untrained")
  lines, said = found(monkeypatch, capsys, results, "--cases", *on_digits)
  assert not any("missing" in sentence for sentence in said)
  rates = [line for line in lines if line["seed"] == 100]
  reported = [line for line in lines if line["seed"] != 100]
  # Every line is asked for, none twice, and none is of anything else.
  assert same(reported, published(*on_digits))
  looks = [
    line
    for line in published("rates")
    if line["config"]["data"] == "scanned_digits"
  ]
  assert same(rates, looks)


def test_lines_of_the_input_of_before_are_not_found(
  results, monkeypatch, capsys
):
  """Those on PACS, whose crops were of shrunk squares: they are run anew."""
  files = [
    (results / f"study_{name}_cpu.jsonl") for name in ("sources", "rates")
  ]
  before = [file.read_bytes() for file in files]
  where = ("--root", "elsewhere/PACS", "--backbone", f"elsewhere/{WEIGHTS}")
  options = ("--cases", "sources", *where)
  lines, said = found(monkeypatch, capsys, results, *options, minutes="0")
  assert lines == []
  assert "missing" in said[-1]
  assert [file.read_bytes() for file in files] == before


def test_the_rule_lacks_the_six_lines_of_its_highest_rate(
  results, monkeypatch, capsys
):
  options = ("--cases", "rule")
  before = (results / "study_rule_cpu.jsonl").read_bytes()
  lines, said = found(monkeypatch, capsys, results, *options, minutes="0")
  assert same(lines, published("rule"))
  assert said[-1].startswith("6 lines are missing in")
  assert said[0].startswith("69 of 75 lines are in")
  at = [line["config"]["method"]["learning_rate"] for line in lines]
  assert {rate: at.count(rate) for rate in at} == {
    **dict.fromkeys((1e-3, 3e-3, 1e-2, 3e-2), 15),
    1e-1: 9,
  }
  assert (results / "study_rule_cpu.jsonl").read_bytes() == before


def test_other_seeds_are_missing(results, monkeypatch, capsys):
  options = ("--cases", "untrained", "--seeds", "0", "7")
  lines, said = found(monkeypatch, capsys, results, *options, minutes="0")
  assert said[-1].startswith("6 lines are missing in")
  assert same(
    [line for line in lines if line["seed"] == 0],
    [line for line in published("untrained") if line["seed"] == 0],
  )
