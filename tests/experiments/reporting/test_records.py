"""Tests `experiments/reporting/records.py`."""

import concurrent.futures
import dataclasses
import errno
import fcntl
import json
import math
import os
import pathlib
import resource
import signal

import pytest

from experiments import methods
from experiments.methods.ema import EMA
from experiments.methods.ftp import FTP
from experiments.methods.gmixout import GMixout
from experiments.reporting import records
from experiments.reporting.identity import identity_of


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


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
  """Files may not grow past a limit; that fails like a disk that is full."""
  path = tmp_path / "results.jsonl"
  records.append(path, {"seed": 0})
  before = path.read_bytes()
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    with pytest.raises(OSError, match=r"100 of \d+ bytes could be written"):
      records.append(path, {"seed": 1, "x": "y" * 500})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)
  assert path.read_bytes() == before
  records.append(path, {"seed": 2})
  assert [record["seed"] for record in records.read(path)] == [0, 2]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_where_there_are_no_locks_lines_are_appended(
  tmp_path, monkeypatch, number
):
  def flock(descriptor, how):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, "flock", flock)
  path = tmp_path / "results.jsonl"
  if number == errno.EIO:
    with pytest.raises(OSError, match="Input/output error"):
      records.append(path, {"seed": 0})
  else:
    records.append(path, {"seed": 0})
    assert records.read(path) == [{"seed": 0}]


def test_who_looks_first_adds_without_another_writer(tmp_path):
  path = tmp_path / "results.jsonl"

  def add_if_missing(_):
    with records.alone(path):
      if not records.read(path):
        records.append(path, {"seed": 0})

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(add_if_missing, range(16)))
  assert records.read(path) == [{"seed": 0}]


@pytest.mark.parametrize("name", ["/dev/zero", "folder", "pipe"])
def test_what_is_no_regular_file_is_refused(tmp_path, name):
  path = tmp_path / name
  if name == "folder":
    path.mkdir()
  elif name == "pipe":
    os.mkfifo(path)
  for use in (records.read, lambda path: records.append(path, {"seed": 0})):
    with pytest.raises(ValueError, match=f"{path} must be a file of result li"):
      use(path)


def test_lines_are_appended_to_no_other_file(tmp_path):
  path = tmp_path / "predictions.csv"
  path.write_text("file,class\n")
  with pytest.raises(ValueError, match=r"csv must be new, or a file of result"):
    records.append(path, {"seed": 0})
  assert path.read_text() == "file,class\n"


def test_an_empty_line_is_passed_over(tmp_path):
  """Of two writers at once either may begin a line that the other has begun."""
  path = tmp_path / "results.jsonl"
  path.write_text('{"seed": 0}\n\n{"seed": 2}\n')
  assert [record["seed"] for record in records.read(path)] == [0, 2]


@pytest.mark.parametrize("bad", ['{"seed": 1', "[1, 2]", "3"])
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
    for file in folder.glob("curves_*_cpu.jsonl")
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


CONFIG = {"method": {"name": "swa", "every": 2}, "data": "small", "steps": 3}
LINE = {"config": CONFIG, "seed": 1, "metrics": {"id": 0.5}}


def test_a_line_is_noted_in_the_folder_of_its_run(tmp_path):
  assert records.recall(tmp_path) is None
  assert records.recall(tmp_path / "not there") is None
  records.note(tmp_path, LINE)
  assert records.recall(tmp_path) == LINE
  newer = LINE | {"metrics": {"id": 0.75}}
  records.note(tmp_path, newer)
  assert records.recall(tmp_path) == newer
  # Nothing of what it took is left, and a note that fails changes nothing.
  before = sorted(path.name for path in tmp_path.iterdir())
  with pytest.raises(ValueError, match="Out of range float"):
    records.note(tmp_path, {"loss": math.nan})
  assert records.recall(tmp_path) == newer
  assert sorted(path.name for path in tmp_path.iterdir()) == before
  (path,) = tmp_path.iterdir()
  path.write_text(path.read_text()[:20])
  with pytest.raises(ValueError, match=rf"{path.name}:1: "):
    records.recall(tmp_path)


def test_a_noted_line_is_read_as_one_of_a_results_file(tmp_path):
  """What was noted by an earlier version is in the words of today, too."""
  described = records.plain(methods.described(FTP(of=GMixout())))
  older = {k: v for k, v in described.items() if k != "norm"}
  older["of"] = described["of"] | {"compact": False}
  records.note(tmp_path, LINE | {"config": CONFIG | {"method": older}})
  recalled = records.recall(tmp_path)
  assert recalled["config"]["method"] == described
  records.check_same(tmp_path, recalled, CONFIG | {"method": described}, 1)


def test_a_finished_run_is_the_one_that_is_asked_for(tmp_path):
  records.check_same(tmp_path, LINE, CONFIG, 1)
  usual = CONFIG | {"dtype": "float32", "warmup": 0.1, "remat": False}
  records.check_same(tmp_path, LINE, usual, 1)
  records.check_same(tmp_path, LINE | {"config": usual}, CONFIG, 1)
  for config, seed, message in (
    (CONFIG, 2, "seed is 1 there and 2 here"),
    (CONFIG | {"steps": 4}, 1, "steps is 3 there and 4 here"),
    (CONFIG | {"dtype": "bfloat16"}, 1, "dtype is None there and 'bfloat16'"),
    ({"data": "small", "steps": 3}, 1, "method is .* there and None here"),
    (
      CONFIG | {"method": {"name": "swa", "every": 3}},
      1,
      "method is .*'every': 2.* there and .*'every': 3.* here",
    ),
  ):
    with pytest.raises(ValueError, match=message) as error:
      records.check_same(tmp_path, LINE, config, seed)
    assert str(error.value).startswith(f"{tmp_path} holds a finished run of")


def test_configurations_are_compared_in_the_words_of_today():
  for name, usual in records.DEFAULTS.items():
    assert records.comparable(CONFIG | {name: usual}) == CONFIG
    other = CONFIG | {name: "unusual"}
    assert records.comparable(other) == other
  assert records.comparable(CONFIG) is not CONFIG
  # The study's ViT has pixels centred at a half; a user's file says which.
  half = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
  studied = CONFIG | {"weights": "vit"}
  assert records.comparable(studied | half) == studied
  users = studied | {"backbone_digest": "12"} | half
  assert records.comparable(users) == users
  # Who left a domain out with `train` of 0.1.0 drew as many images of each.
  left_out = CONFIG | {"data": {"root": "PACS", "target": "photo"}}
  trained = records.comparable(left_out | {"skip_nonfinite": 0})
  balanced = left_out["data"] | {"balanced": True}
  assert trained == left_out | {"data": balanced}
  assert records.comparable(trained) == trained
  assert records.comparable(left_out) == left_out
  assert identity_of(trained, 0) != identity_of(left_out, 0)
  assert "balanced" not in left_out["data"]  # what is asked is left alone


def test_environment_is_json():
  json.dumps(records.environment(), allow_nan=False)
