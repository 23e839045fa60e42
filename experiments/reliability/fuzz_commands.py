"""Command lines for `fuzz`: words are damaged, and nothing is trained."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable
from random import Random
from typing import Any
from unittest import mock

from PIL import Image

from experiments import evaluate, predict, report, sweep, train
from experiments.data import __main__ as data
from experiments.data import scanned_digits
from experiments.data.decode import View
from experiments.diagnostics import __main__ as diagnostics
from experiments.pretraining import pretrain_clip
from experiments.reliability import mutations
from experiments.reliability.fuzz_models import make_clip
from experiments.reliability.fuzz_runs import make_results
from experiments.reliability.reader import Reader

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
  "pretrain_clip": (
    *("folder", "--root", "captioned", "--no-locked", "--image-size", "16"),
    *("--steps", "2", "--batch-size", "2", "--held-out", "1", "--seed", "0"),
    *("--learning-rate", "0.1", "--warmup", "0.5", "--out", "made"),
    *("--results", "runs/pretraining.jsonl", "--checkpoint", "saved"),
  ),
  "diagnostics": (
    *("bvcl", "gmixout", "--knob", "resample_every", "--values", "2", "5"),
    *("--seeds", "0", "1", "2", "--members-per-run", "2", "--every", "10"),
    *("--steps", "20", "--out", "runs/diagnostics.jsonl"),
  ),
  "diagnostics landscape": (
    *("landscape", "--seed", "0", "--steps", "3", "--points", "3"),
    *("--out", "runs/diagnostics.jsonl"),
  ),
  "data check": ("check", "domains", "--as", "domainbed", "--decode"),
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
  for domain in ("domains/art", "domains/photo"):
    shutil.copytree(folder / "photos", folder / domain)
  images = folder / "captioned" / "images"
  shutil.copytree(folder / "photos" / "cat", images)
  (folder / "captioned" / "captions.txt").write_text(
    "image,caption\n0.png,a cat\n1.png,a dog\n"
  )
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
      return _PROGRAMS[name](words)
  except SystemExit as error:
    if "Traceback" in shown.getvalue():
      raise AssertionError(shown.getvalue()[-500:]) from None
    raise ValueError(f"{name}.json: {error}") from None
  finally:
    os.chdir(before)


class _Enough(Exception):
  """All is checked, and something would be trained now."""


def _of_pretraining(words: list[str]) -> Any:
  config = pretrain_clip.parse(words)
  pretrain_clip.check(config)
  images = config.data.open(View(config.image_size))
  return images.split(config.held_out, seed=config.seed)


def _of_diagnostics(words: list[str]) -> int:
  # Of a user's input it reads nothing later.
  with mock.patch.object(scanned_digits, "load", side_effect=_Enough):
    try:
      return _ended(diagnostics.main(words))
    except _Enough:
      return 0


def _ended(status: int) -> int:
  """The status of a command that has printed its error."""
  return sys.exit("it has said why") if status else status


_PROGRAMS: dict[str, Callable[[list[str]], Any]] = {
  "train": lambda words: train.parse(words).cell().config,
  "sweep": lambda words: sweep.parse(words).task().config,
  "predict": lambda words: predict.parse(words).load().class_names,
  "evaluate": lambda words: [
    one.classes for one in evaluate.parse(words).sets().values()
  ],
  "report": report.main,
  "pretrain_clip": _of_pretraining,
  "diagnostics": _of_diagnostics,
  "diagnostics landscape": _of_diagnostics,
  "data check": lambda words: _ended(data.main(words)),
}


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
