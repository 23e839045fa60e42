"""Paths and errors of all command lines."""

import os
import pathlib
import sys

import pytest

from experiments import (
  command_line,
  evaluate,
  predict,
  report,
  run_options,
  sweep,
  train,
)
from experiments.bench import __main__ as bench
from experiments.bench.gpu import __main__ as on_gpu
from experiments.data import __main__ as data
from experiments.diagnostics import __main__ as diagnostics
from experiments.pretraining import pretrain_clip, pretrain_demo
from experiments.reporting import records

BUCKET = "gs://bucket/x"


def by_argv(main):
  """A main that reads sys.argv."""

  def call(words):
    sys.argv = ["program", *words]
    return main()

  return call


COMMANDS = {
  "bench": (by_argv(bench.main), "flops", "--no-large", "--json", BUCKET),
  "bench.gpu": (on_gpu.main, "--out", BUCKET),
  "data check": (data.main, "check", BUCKET, "--as", "pacs"),
  "bvcl": (diagnostics.main, "bvcl", "gmixout", "--out", BUCKET),
  "landscape": (diagnostics.main, "landscape", "--out", BUCKET),
  "pretrain_clip": (
    pretrain_clip.parse, "digits", "--no-locked", "--results", BUCKET,
  ),
  "pretrain_demo": (
    lambda words: command_line.parse(pretrain_demo.Config, args=words),
    "--out", BUCKET,
  ),
  "report": (report.main, BUCKET),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bucket_is_refused_before_anything_is_touched(
  name, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "argv", sys.argv)
  main, *words = COMMANDS[name]
  try:
    status = main(words)
  except SystemExit as error:
    status = error.code
  shown = capsys.readouterr()
  told = " ".join(f"{status} {shown.out} {shown.err}".split())
  assert status not in (0, None)
  assert "must be a path on a local or a mounted disk" in told
  assert "Traceback" not in told
  assert os.listdir(tmp_path) == []


def test_a_function_that_is_checked_is_the_same_otherwise(tmp_path):
  def run(path: pathlib.Path, *, sides: tuple[pathlib.Path, ...] = ()) -> int:
    """Runs."""
    if not path.exists():
      raise FileNotFoundError(f"no {path}")
    return len(sides)

  checked = command_line.checked(run)
  assert checked(tmp_path, sides=(tmp_path,)) == 1
  assert checked.__doc__ == "Runs."
  with pytest.raises(SystemExit, match="error: no nowhere"):
    checked(pathlib.Path("nowhere"))
  with pytest.raises(SystemExit, match=r"error: --sides must .*s3:/a"):
    checked(tmp_path, sides=(pathlib.Path("s3://a"),))


@pytest.mark.parametrize("kind", ["folder", "pipe", "other", "device"])
def test_a_results_file_is_known_to_be_none_before_a_run(tmp_path, kind):
  path = tmp_path / "results.jsonl"
  if kind == "folder":
    path.mkdir()
  elif kind == "pipe":
    os.mkfifo(path)
  elif kind == "device":
    path.symlink_to("/dev/null")
  else:
    path.write_text("my notes")
  with pytest.raises(ValueError, match=r"results\.jsonl must be"):
    run_options.check_results(path)
  missing = str(tmp_path / "nowhere")
  for command, words in (
    (train, ("gmixout", "--backbone", missing, "--train", missing)),
    (evaluate, (missing, "--val", missing)),
  ):
    parsed = command.parse([*words, "--results", str(path)])
    with pytest.raises(SystemExit, match=r"results\.jsonl must be"):
      command.main(parsed)
  parsed = pretrain_clip.parse(
    ["digits", "--no-locked", "--results", str(path)]
  )
  with pytest.raises(ValueError, match=r"results\.jsonl must be"):
    pretrain_clip.check(parsed)


def test_a_results_file_that_is_read_only_is_named(tmp_path, monkeypatch):
  path = tmp_path / "results.jsonl"
  records.append(path, {"a": 1})
  before, opened = path.read_bytes(), os.open

  def refuse(name, flags, *mode):
    if pathlib.Path(name) == path and flags & os.O_RDWR:
      raise PermissionError(13, "Permission denied", str(path))
    return opened(name, flags, *mode)

  with monkeypatch.context() as patch:
    patch.setattr(os, "open", refuse)
    with pytest.raises(
      ValueError, match=r"--results: .*results\.jsonl: Permis"
    ):
      run_options.check_results(path)
  run_options.check_results(path)
  assert path.read_bytes() == before


@pytest.mark.parametrize(
  ("main", "words"),
  [
    (train.parse, ("gmixout", "--templates", "a {}", "--templates", "b {}")),
    (predict.parse, ("x", "y", "--classes", "a", "--classes=b", "c")),
    (evaluate.parse, ("x", "--templates=a {}", "--templates", "b {}")),
    (sweep.parse, ("gmixout", "--seeds", "0", "--seeds", "1")),
    (report.main, ("x.jsonl", "--references", "a", "--references", "b")),
    (diagnostics.main, ("bvcl", "gmixout", "--values", "1", "--values", "2")),
  ],
)
def test_of_a_flag_given_twice_no_value_is_lost(main, words):
  with pytest.raises(SystemExit, match=f"{words[-2].split('=')[0]} is given"):
    main(list(words))
