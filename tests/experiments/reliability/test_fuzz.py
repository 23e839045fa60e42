"""Tests `experiments/reliability/fuzz.py`: it passes, and finds old faults."""

import collections
import dataclasses
import json
import random
import socket
import time
import urllib.request
from typing import NamedTuple

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file

from experiments.data import imagenet
from experiments.reliability import fuzz, fuzz_data, mutations

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


class Named(NamedTuple):
  """Two images, by what a file calls their classes."""

  labels: np.ndarray
  class_names: tuple[bytes, ...] = ()

  def __len__(self):
    return len(self.labels)


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
  "folders that are gone without a word": fuzz_data._folder(
    "ImageNet",
    fuzz_data._tree("n01440764", "n01443537"),
    lambda root: dataclasses.replace(imagenet.tree(root), left_out=()),
  ),
  "labels of a number that no file names": of(
    "TFDS, names of labels",
    lambda folder: [
      (images._replace(class_names=tuple(names)), chunks)
      for images, chunks in [(Named(np.arange(2)), [[0, 1]])]
      for names in [
        (folder / "1.0.0" / "label.labels.txt").read_bytes().split()
      ]
    ],
  ),
  "lines that name no file": of(
    "result lines",
    lambda folder: [
      json.loads(line)["metrics"]["id"]
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
  data = json.dumps({"a": [1, {"b": 2}], "c": "x"}).encode()
  kinds = set()
  for n in range(200):
    found = mutations.of_json(data, random.Random(n))
    try:
      kinds.add(type(json.loads(found)).__name__)
    except (ValueError, RecursionError):
      kinds.add("damaged")
  assert {"dict", "damaged"} <= kinds


def test_structures_are_the_same_by_seed():
  first = mutations._structures(3)
  mutations._structures.cache_clear()
  again = mutations._structures(3)
  assert repr(first) == repr(again)  # NaN is not itself
  assert repr(first) != repr(mutations._structures(4))
  assert len(first) == 100
  assert {list, dict, str} <= {type(value) for value in first}


def test_a_folder_has_other_names_and_files_of_all_kinds(tmp_path):
  kinds = collections.Counter()
  for n in range(60):
    folder = tmp_path / str(n)
    fuzz_data._tree("a", "b")(folder)
    mutations.of_folder(folder / "root", random.Random(n))
    for path in (folder / "root").rglob("*"):
      kinds["link"] += path.is_symlink()
      kinds["pipe"] += path.is_fifo()
      kinds["empty"] += path.is_dir() and not any(path.iterdir())
    kinds["fewer"] += len(list((folder / "root").rglob("*"))) < 6
  assert len(kinds) == 4
  assert min(kinds.values()) > 0


def test_what_asks_the_network_is_wrong(tmp_path, monkeypatch):
  monkeypatch.setattr(socket, "getaddrinfo", fuzz._no_network)
  reader = of(
    "ImageNet, words",
    lambda folder: urllib.request.urlopen("http://localhost/x"),
  )
  reader.make(tmp_path)
  why = fuzz._bounded(reader, tmp_path, 0, 1).why
  assert "looked for 'localhost' on the network" in why
