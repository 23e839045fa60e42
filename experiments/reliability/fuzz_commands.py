"""Command lines for `fuzz`: words are damaged, and nothing is trained."""

import contextlib
import io
import json
import os
import pathlib
from random import Random
from typing import Any

from PIL import Image

from experiments import evaluate, predict, report, sweep, train
from experiments.reliability import mutations
from experiments.reliability.fuzz_readers import Reader, make_clip, make_results

_TRAIN = (
  *("gmixout", "--backbone", "clip", "--train", "photos", "--val", "others"),
  *("--ood", "x=away", "--steps", "3", "--batch-size", "4", "--seed", "0"),
  *("--learning-rate", "0.1", "--results", "runs/results.jsonl"),
  *("--templates", "a {}", "--mean", "0.5", "0.5", "0.5"),
)
COMMANDS: dict[str, tuple[str, ...]] = {
  "train": _TRAIN,
  "sweep": (
    *("gmixout", "full_finetuning", *_TRAIN[1:13]),
    *("--set", "gmixout.anchor_decay=0,0.3", "--seeds", "0", "1"),
  ),
  "predict": (
    *("clip", "photos", "--out", "out.csv", "--top", "1"),
    *("--classes", "cat", "dog", "--templates", "a {}", "--batch-size", "4"),
  ),
  "evaluate": (
    *("clip", "--val", "photos", "--ood", "x=away", "--classes", "cat", "dog"),
    *("--results", "runs/evaluations.jsonl", "--templates", "a {}"),
  ),
  "report": ("results.jsonl", "--out", "report"),
}


def _make(name: str, folder: pathlib.Path) -> None:
  make_clip(folder / "clip")
  make_results(folder)
  for root in ("photos", "others", "away"):
    for label in ("cat", "dog"):
      (folder / root / label).mkdir(parents=True)
      for number in range(2):
        path = folder / root / label / f"{number}.png"
        Image.new("RGB", (9, 9)).save(path)
  (folder / f"{name}.json").write_text(json.dumps(COMMANDS[name]))


def _damaged(data: bytes, rng: Random) -> bytes:
  words: list[str] = json.loads(data)
  for _ in range(rng.choice((1, 1, 2, 3))):
    at = rng.randrange(len(words))
    kind = rng.randrange(4)
    if kind == 0 and len(words) > 1:
      del words[at]
    elif kind == 1:
      words.insert(at, rng.choice(words))
    else:
      other = str(rng.choice(mutations.EXTREMES))
      equals = words[at].partition("=")
      words[at] = other if not equals[1] else f"{equals[0]}={other}"
  return json.dumps(words).encode()


def _run(name: str, folder: pathlib.Path) -> Any:
  """Reads a command line, and what it names; nothing is trained."""
  words = json.loads((folder / f"{name}.json").read_text())
  before = os.getcwd()
  shown = io.StringIO()
  os.chdir(folder)
  try:
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
      if name == "train":
        return train.parse(words).cell().config
      if name == "sweep":
        return sweep.parse(words).task().config
      if name == "predict":
        return predict.parse(words).load().class_names
      if name == "evaluate":
        config = evaluate.parse(words)
        return [one.classes for one in config.sets().values()]
      return report.main(words)
  except SystemExit as error:
    if "Traceback" in shown.getvalue():
      raise AssertionError(shown.getvalue()[-500:]) from None
    raise ValueError(f"{name}.json: {error}") from None
  finally:
    os.chdir(before)


def _reader(name: str) -> Reader:
  return Reader(
    f"command line, {name}",
    lambda folder: _make(name, folder),
    f"{name}.json",
    _damaged,
    lambda folder: _run(name, folder),
    lambda found: True,
    names_input=False,
  )


READERS = tuple(map(_reader, COMMANDS))
