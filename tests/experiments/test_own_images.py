"""Runs the guide to one's own images on tiny real files."""

import csv
import importlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from experiments.reporting import records
from experiments.reporting.entries import by_task

ROOT = pathlib.Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "own_images.md"
NAMES = {"cat": "golden retriever", "dog": "Käuzchen", "owl": "house"}

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path, clip_folder, pacs):
  """What the guide says one has."""
  shutil.copytree(clip_folder, tmp_path / "my_clip")
  folders = {
    "art": "train",
    "photo": "val",
    "sketch": "night",
    "cartoon": "fog",
  }
  for domain, folder in folders.items():
    for old, new in NAMES.items():
      shutil.copytree(pacs / domain / old, tmp_path / "photos" / folder / new)
  (tmp_path / "new" / "monday").mkdir(parents=True)
  for file in (pacs / "photo" / "cat").iterdir():
    shutil.copy(file, tmp_path / "new" / "monday" / file.name)
  return tmp_path


def from_a_shell(command, place):
  bin = pathlib.Path(sys.executable).parent
  done = subprocess.run(
    ["bash", "-e", "-c", command],
    cwd=place,
    env=os.environ
    | {
      "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
      "PYTHONPATH": str(ROOT),
      "HOME": str(place / "home"),
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr


def in_this_process(command):
  """What a command does once Python has imported all of it, for seconds."""
  start, name = command.replace("\\\n", " ").split(" -m ", 1)
  name, *arguments = shlex.split(name)
  assert start == "python"
  module = importlib.import_module(name)
  parse = getattr(module, "parse", lambda arguments: arguments)
  assert not module.main(parse(arguments))


def test_the_six_commands_lead_to_predictions(place, monkeypatch):
  commands = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL)
  assert len(commands) == 6
  from_a_shell(commands[0], place)
  monkeypatch.chdir(place)
  for command in commands[1:]:
    in_this_process(command)
  lines = records.read(place / "runs" / "results.jsonl")
  assert [line["config"]["method"]["name"] for line in lines] == [
    "zero_shot", "full_finetuning", "gmixout",
  ]  # fmt: skip
  assert len(by_task(lines)) == 1  # so that they stand in one table
  for line in lines:
    assert list(line["metrics"]["ood"]) == ["night"]
  assert (place / "runs" / "report" / "report.html").is_file()
  (told,) = records.read(place / "runs" / "evaluations.jsonl")
  assert list(told["metrics"]["ood"]) == ["fog"]
  with open(place / "predictions.csv", newline="", encoding="utf-8") as file:
    header, *rows = csv.reader(file)
  shown = re.search(r"^    (file,.*)$", GUIDE.read_text(), re.MULTILINE)
  assert shown is not None
  assert ",".join(header) == shown[1]
  assert [row[0] for row in rows] == [
    f"monday/{name}" for name in ("0.png", "1.JPG", "2.png", "3.JPG", "4.png")
  ]
  for row in rows:
    assert {row[1], row[3]} <= {*NAMES.values()}
    assert 1 >= float(row[2]) >= float(row[4]) >= 0
