"""Tests `experiments/reliability/fuzz.py`: it passes, and finds old faults."""

import collections
import time

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file

from experiments.reliability import fuzz, fuzz_readers, mutations

pytestmark = pytest.mark.slow


def test_half_a_minute_of_every_kind():
  counts, wrong = fuzz.run(fuzz.Config(seconds=30.0, seed=2))
  assert {name: found for name, found in wrong.items() if found} == {}
  assert list(counts) == list(fuzz.READERS)
  for name, found in counts.items():
    assert found["read"] >= 1, name  # what is undamaged


def outcomes(tmp_path, reader, numbers=range(1, 60)):
  template = tmp_path / "good"
  template.mkdir()
  reader.make(template)
  assert fuzz.attempt(reader, template, 0, 0).outcome == "read"
  return [fuzz._bounded(reader, template, 0, n) for n in numbers]


def of(name, read, **changes):
  return fuzz.READERS[name]._replace(read=read, **changes)


# As they were before the readers were mended.
FAULTS = {
  "damaged headers of arrays": of(
    "CIFAR-C, arrays",
    lambda folder: [
      np.load(path, allow_pickle=False) for path in folder.glob("*.npy")
    ],
    right=lambda found: True,
  ),
  "bare exceptions of tokenizers": of(
    "tokenizer.json",
    lambda folder: tokenizers.Tokenizer.from_file(
      str(folder / "tokenizer.json")
    ),
    right=lambda found: True,
  ),
  "weights that are no numbers": of(
    "ViT in a file",
    lambda folder: load_file(folder / "x.safetensors"),
    right=lambda found: all(np.isfinite(v).all() for v in found.values()),
    damage=lambda data, rng: data[:-4] + b"\x00\x00\xc0\x7f",
  ),
  "lines that name no file": of(
    "result lines",
    lambda folder: [
      fuzz_readers.json.loads(line)["metrics"]["id"]
      for line in (folder / "results.jsonl").read_bytes().splitlines()
    ],
    right=lambda found: True,
  ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_finds_what_was_wrong_once(tmp_path, name):
  found = outcomes(tmp_path, FAULTS[name])
  assert any(case.outcome == "wrong" for case in found)


def test_what_takes_too_long_or_too_much_is_wrong(tmp_path, monkeypatch):
  monkeypatch.setattr(fuzz, "SECONDS", 1)
  name = "ImageNet, words"
  slow = of(name, fuzz.READERS[name].read, right=lambda found: True)
  good = tmp_path / "good"
  good.mkdir()
  slow.make(good)
  late = slow._replace(read=lambda folder: time.sleep(5))
  assert "more than 1 s" in fuzz._bounded(late, good, 0, 1).why
  # The peak of this process may have been far above what it has now.
  usage, peaks = collections.namedtuple("usage", "ru_maxrss"), [0, 2**21]
  monkeypatch.setattr(
    fuzz.resource, "getrusage", lambda who: usage(peaks.pop(0))
  )
  assert "2048 MiB more" in fuzz._bounded(slow, good, 0, 1).why


def test_a_process_that_dies_is_one_wrong_case(tmp_path):
  worker, name = fuzz.Worker(), "ImageNet, words"
  fuzz.READERS[name].make(tmp_path)
  assert worker.do(name, tmp_path, 0, 0).outcome == "read"
  worker._process.kill()
  case = worker.do(name, tmp_path, 0, 1)
  assert case.outcome == "wrong"
  assert "the process ended with -9" in case.why
  assert worker.do(name, tmp_path, 0, 2).outcome != "wrong"
  worker.end()


def test_a_case_is_the_same_by_seed_and_number(tmp_path):
  reader = fuzz.READERS["labels in a CSV"]
  first = outcomes(tmp_path, reader)
  (tmp_path / "again").mkdir()
  again = outcomes(tmp_path / "again", reader)
  assert [case.outcome for case in first] == [case.outcome for case in again]
  assert len({case.why.partition(":")[2] for case in first}) > 5


def test_json_stays_json_where_values_are_damaged():
  import json
  import random

  data = json.dumps({"a": [1, {"b": 2}], "c": "x"}).encode()
  kinds = set()
  for n in range(200):
    found = mutations.of_json(data, random.Random(n))
    try:
      kinds.add(type(json.loads(found)).__name__)
    except (ValueError, RecursionError):
      kinds.add("damaged")
  assert {"dict", "damaged"} <= kinds
