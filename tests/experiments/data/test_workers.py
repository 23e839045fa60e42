"""Tests who decodes, and that no number depends on it."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.data import workers
from experiments.data.batches import batches, stream
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet
from experiments.data.workers import Workers
from tests.combinations import EXHAUSTIVE

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def usual():
  yield
  workers.choose(Workers())


@pytest.fixture
def photos(tmp_path):
  rng = np.random.default_rng(0)
  paths = []
  for number in range(10):
    pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    paths.append(str(tmp_path / f"{number}.{('png', 'jpg')[number % 2]}"))
    Image.fromarray(pixels).save(paths[-1])
  labels = np.arange(10) % 2
  return ImageSet.of(Files(tuple(paths), View(8)), labels, ("even", "odd"))


def affinity(*cpus):
  """What a process says that may use these CPUs."""
  program = (
    f"import os; os.sched_setaffinity(0, {cpus});"
    "from experiments.data.workers import *;"
    "print(allowed_cpus(), *Workers().resolved())"
  )
  done = subprocess.run(
    [sys.executable, "-c", program],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  return [int(word) for word in done.stdout.split()]


def test_cpus_are_those_that_the_process_may_use():
  here = sorted(os.sched_getaffinity(0))
  assert affinity(here[0]) == [1, 1, 0]
  assert workers.allowed_cpus() <= len(here)


@pytest.mark.parametrize(
  ("lines", "files", "expected"),
  [
    # Version 2: the strictest of the groups around the process counts.
    (
      "0::/a/b\n",
      {"a/cpu.max": "350000 100000\n", "a/b/cpu.max": "max 100000\n"},
      [3.5],
    ),
    ("0::/\n", {"cpu.max": "200000 100000\n"}, [2.0]),
    # In a container the path is that of the host, and is not there.
    ("0::/docker/1234\n", {"cpu.max": "50000 100000\n"}, [0.5]),
    # Version 1, beside other controllers.
    (
      "9:memory:/x\n4:cpu,cpuacct:/job\n",
      {
        "cpu,cpuacct/job/cpu.cfs_quota_us": "400000\n",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
      },
      [4.0],
    ),
    ("0::/\n", {}, []),
    ("0::/\n", {"cpu.max": "nonsense\n"}, []),
  ],
)
def test_a_container_is_granted_a_share(tmp_path, lines, files, expected):
  own, mount = tmp_path / "cgroup", tmp_path / "fs"
  own.write_text(lines)
  for name, text in files.items():
    path = mount / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  assert list(workers._quotas(own, mount)) == expected
  assert list(workers._quotas(tmp_path / "none", mount)) == []


def test_a_share_limits_the_threads(monkeypatch):
  monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: range(64))
  for quotas, expected in (((), 64), ((3.5, 12.0), 4), ((0.5,), 1)):
    monkeypatch.setattr(workers, "_quotas", lambda quotas=quotas: quotas)
    assert workers.allowed_cpus() == expected


def test_threads_and_processes_share_the_cpus():
  assert Workers().resolved(cpus=1) == (1, 0)
  assert Workers().resolved(cpus=16) == (16, 0)
  assert Workers().resolved(cpus=17) == (8, 2)
  assert Workers().resolved(cpus=224) == (16, 14)
  assert Workers(threads=40).resolved(cpus=64) == (40, 0)
  assert Workers(processes=0).resolved(cpus=64) == (64, 0)
  assert Workers(processes=3).resolved(cpus=2) == (1, 3)
  assert Workers(threads=5, processes=3).resolved(cpus=2) == (5, 3)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"threads": 0}, "--decode-threads must be from 1 to 1024, got 0"),
    ({"threads": 2000}, "--decode-threads must be from 1 to 1024, got 2000"),
    ({"processes": -1}, "--decode-processes must be from 0 to 256, got -1"),
  ],
)
def test_what_cannot_be_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    Workers(**fields)


def taken(dataset, start, stop):
  iterator = iter(stream(dataset, start, stop))
  try:
    return [np.array(batch["image"]) for batch in iterator]
  finally:
    iterator.close()


@pytest.mark.slow
def test_batches_do_not_depend_on_who_decodes(photos, usual):
  dataset = batches(photos, batch_size=4, seed=3, augment="randaugment")
  workers.choose(Workers(1, 0))
  whole = taken(dataset, 0, 7)
  assert len(whole) == 7
  # Taken up in the middle, by others.
  for chosen in (Workers(5, 0), Workers(2, 2)):
    workers.choose(chosen)
    np.testing.assert_array_equal(taken(dataset, 2, 7), whole[2:])


@pytest.mark.slow
def test_a_broken_image_is_named_by_whoever_decodes_it(photos, usual):
  with open(photos.name(3), "wb") as file:
    file.write(b"not an image")
  dataset = batches(photos, batch_size=10, seed=0)
  for chosen in (Workers(2, 0), Workers(1, 1)):
    workers.choose(chosen)
    with pytest.raises(Exception, match=r"3\.jpg is not a readable image"):
      taken(dataset, 0, 2)


TRAINS = """
import json, pathlib, resource, sys
import jax, numpy as np
from experiments.data.batches import batches, stream
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.schedule import Schedule
from experiments.training import loop
from tests.experiments import tiny

paths = tuple(map(str, sorted(pathlib.Path(sys.argv[1]).iterdir())))
images = ImageSet.of(Files(paths, View(16)), np.arange(len(paths)) % 3, "abc")
dataset = batches(images, batch_size=200, seed=0)
pages = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1])
seen = []
loop.fit(
  FullFinetuning(),
  tiny.classifier(),
  lambda start: stream(dataset, start, 130),
  steps=130,
  schedule=Schedule(130),
  key=jax.random.key(0),
  progress=lambda step, loss: seen.append(pages() * resource.getpagesize()),
)
print(json.dumps(seen))
"""


@EXHAUSTIVE
def test_twenty_thousand_files_are_trained_on_in_the_memory_of_a_few(tmp_path):
  """Over more than an epoch, and with no growth after the first steps."""
  pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / "0.jpg")
  for number in range(1, 20_000):
    os.link(tmp_path / "0.jpg", tmp_path / f"{number}.jpg")
  done = subprocess.run(
    [sys.executable, "-c", TRAINS, str(tmp_path)],
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  seen = json.loads(done.stdout)
  assert len(seen) == 130
  # Pixels of these steps would be 12 MB more.
  assert seen[-1] - seen[60] < 4 * 2**20, seen
