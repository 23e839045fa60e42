import concurrent.futures
import dataclasses
import json
import math
import pathlib

import pytest

from experiments import methods
from experiments.methods.ema import EMA
from experiments.methods.ftp import FTP
from experiments.methods.gmixout import GMixout
from experiments.reporting import records
from experiments.study import choose
from experiments.study.plan import Cell
from experiments.study.tasks import Digits


def test_round_trip(tmp_path):
  @dataclasses.dataclass(frozen=True)
  class Config:
    root: pathlib.Path
    sizes: tuple[int, ...]

  path = tmp_path / "new" / "results.jsonl"
  record = {"config": Config(tmp_path / "PACS", (1, 2)), "seed": 0}
  records.append(path, record)
  records.append(path, {**records.environment(), "note": "λ = 0.3"})
  first, second = records.read(path)
  # The folder that the data lies in is nobody's business.
  assert first == {"config": {"root": "PACS", "sizes": [1, 2]}, "seed": 0}
  assert second["note"] == "λ = 0.3"
  assert set(second["versions"]) == {"gmixout-jax", "jax", "flax", "optax"}
  assert second["platform"] == "cpu"
  assert path.read_text().count("\n") == 2


def test_a_record_that_is_not_json_leaves_the_file_alone(tmp_path):
  path = tmp_path / "results.jsonl"
  records.append(path, {"seed": 0})
  with pytest.raises(ValueError, match="Out of range float"):
    records.append(path, {"loss": math.nan})
  with pytest.raises(TypeError, match="set"):
    records.append(path, {"loss": {1, 2}})
  assert records.read(path) == [{"seed": 0}]


def test_concurrent_writers_do_not_tear_lines(tmp_path):
  path = tmp_path / "results.jsonl"
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for seed in range(40):
      pool.submit(records.append, path, {"seed": seed, "x": "y" * 5000})
  assert sorted(r["seed"] for r in records.read(path)) == list(range(40))


@pytest.mark.parametrize("bad", ['{"seed": 1', "", "[1, 2]", "3"])
def test_a_malformed_line_is_named(tmp_path, bad):
  path = tmp_path / "results.jsonl"
  path.write_text(f'{{"seed": 0}}\n{bad}\n{{"seed": 2}}\n')
  with pytest.raises(ValueError, match=r"results\.jsonl:2: "):
    records.read(path)


def test_lines_older_than_a_setting_are_read_with_what_they_were_made_with(
  tmp_path,
):
  path = tmp_path / "results.jsonl"
  for method in (FTP(), FTP(norm="mars"), EMA(of=FTP())):
    described = records.plain(methods.described(method))
    records.append(path, {"config": {"method": described}, "seed": 0})
  now = records.read(path)
  assert now[0]["config"]["method"]["norm"] == "l2"
  older = path.read_text().replace(', "norm": "l2"', "")
  assert '"l2"' not in older
  path.write_text(older)
  assert records.read(path) == now


def test_the_published_lines_of_ftp_are_those_of_its_default():
  folder = pathlib.Path(records.__file__).parents[1] / "results"
  (*lines,) = (
    line["config"]["method"]
    for file in folder.glob("study_*_cpu.jsonl")
    for line in records.read(file)
    if line["config"]["method"]["name"] == "ftp"
  )
  assert lines
  for line in lines:
    of = methods.METHODS[line["of"]["name"]](
      learning_rate=line["of"]["learning_rate"]
    )
    assert line == records.plain(methods.described(FTP(of=of)))


def test_lines_that_tell_how_a_run_was_packed_are_those_of_the_same_cell(
  tmp_path,
):
  path = tmp_path / "results.jsonl"
  described = records.plain(methods.described(EMA(of=GMixout())))
  assert "compact" not in json.dumps(described)
  for compact in (False, True):
    of = described["of"] | {"compact": compact}
    line = {"config": {"method": described | {"of": of}}, "seed": 0}
    records.append(path, line)
  assert [line["config"]["method"] for line in records.read(path)] == [
    described,
    described,
  ]


def test_the_study_finds_its_published_lines_of_gmixout():
  folder = pathlib.Path(records.__file__).parents[1] / "results"
  lines = records.read(folder / "study_digits_cpu.jsonl")
  of_gmixout = [
    line for line in lines if line["config"]["method"]["name"] == "gmixout"
  ]
  assert of_gmixout
  for line in of_gmixout:
    told = {k: v for k, v in line["config"]["method"].items() if k != "name"}
    cell = Cell(Digits(), GMixout(**told), line["seed"])
    assert choose.line_of(cell, lines) == line


def test_environment_is_json():
  json.dumps(records.environment(), allow_nan=False)
