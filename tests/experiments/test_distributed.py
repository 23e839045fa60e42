"""Two real processes on this machine, and runs that are killed and go on."""

import os
import signal
import time

import numpy as np
import pytest
import safetensors.numpy

from experiments.data.batches import batches
from experiments.reliability import torture
from experiments.reliability.small_run import Life
from experiments.reporting import records
from tests.combinations import EXHAUSTIVE, tried
from tests.experiments import tiny

STEPS = 4
PATIENCE = 240.0


def test_processes_share_the_batches_of_one_without_overlap():
  split = tiny.split(per_class=8)
  whole = batches(split, batch_size=6, seed=3)
  parts = [
    batches(split, batch_size=6, seed=3, process=rank, processes=2)
    for rank in range(2)
  ]
  for step in (0, 1, 7):  # the last one is of another epoch
    expected = whole[step]["image"]
    together = np.concatenate([part[step]["image"] for part in parts])
    assert [len(part[step]["label"]) for part in parts] == [3, 3]
    assert sorted(image.tobytes() for image in together) == sorted(
      image.tobytes() for image in expected
    )


@pytest.mark.parametrize(("size", "process"), [(5, 0), (4, 2), (4, -1)])
def test_batches_that_cannot_be_shared(size, process):
  with pytest.raises(ValueError, match=rf"batch of {size} images .* {process}"):
    batches(tiny.split(), batch_size=size, seed=0, process=process, processes=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  """Of programs that several runs compile."""
  return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
  ("sharding", "dtype", "rtol"),
  [
    ("fsdp", "float32", 1e-5),
    pytest.param("data", "bfloat16", 3e-3, marks=EXHAUSTIVE),
  ],
)
def test_two_processes_do_what_one_does(tmp_path, cache, sharding, dtype, rtol):
  """Four devices in two processes, one of which is killed, against one."""
  common = ("--dtype", dtype)
  one = Life.start(tmp_path / "one", *common, cache=cache, steps=STEPS)
  for attempt in range(2):
    two = Life.start(
      tmp_path / "two",
      *common,
      *("--sharding", sharding),
      cache=cache,
      steps=STEPS,
      processes=2,
      devices=2,
    )
    if attempt == 0:
      wait_for(two, steps=3)
      two.kill(1, delay=0.5)
  one.end(PATIENCE)
  two.end(PATIENCE)
  (alone,) = records.read(tmp_path / "one/results.jsonl")
  (shared,) = records.read(tmp_path / "two/results.jsonl")  # one line, not two
  assert alone["config"] == shared["config"]
  assert alone["metrics"]["id"] == shared["metrics"]["id"]
  assert two.steps() > STEPS  # some were taken twice, or none was lost
  np.testing.assert_allclose(alone["losses"], shared["losses"], rtol=rtol)
  ours, theirs, other = (
    safetensors.numpy.load_file(tmp_path / name)
    for name in (
      "one/weights_0.safetensors",
      "two/weights_0.safetensors",
      "two/weights_1.safetensors",
    )
  )
  for name in ours:
    np.testing.assert_array_equal(theirs[name], other[name])
    np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol, atol=rtol)


def wait_for(life, *, steps):
  """Until a run has taken some steps."""
  until = time.monotonic() + PATIENCE
  while life.steps() < steps and life.alive() and time.monotonic() < until:
    time.sleep(0.01)
  assert life.alive(), (life.folder / "log_0").read_text()


@pytest.mark.parametrize("killed", tried([0, 1], lambda killed: killed == 0))
def test_a_killed_process_ends_the_others_with_one_line(
  tmp_path, cache, killed
):
  life = Life.start(tmp_path, cache=cache, steps=400, processes=2)
  wait_for(life, steps=2)
  life.processes[killed].kill()
  other = life.processes[1 - killed]
  other.join(PATIENCE)
  log = (tmp_path / f"log_{1 - killed}").read_text()
  assert other.exitcode, log
  assert (
    log.count(f"error: process {killed} of 2 has ended before the run") == 1
  )
  assert "Traceback" not in log


def test_sigterm_to_one_process_saves_and_stops_all(tmp_path, cache):
  life = Life.start(tmp_path, cache=cache, steps=400, processes=2)
  wait_for(life, steps=2)
  os.kill(life.processes[1].pid, signal.SIGTERM)
  life.end(PATIENCE, stopped=True)  # all of them, without an error
  assert {process.exitcode for process in life.processes} == {143}
  assert "stopped as asked after" in (tmp_path / "log_0").read_text()
  assert not (tmp_path / "results.jsonl").exists()
  assert any((tmp_path / "run/run_00").glob("*/manifest.json"))


def test_a_checkpoint_of_two_processes_resumes_in_one(tmp_path, cache):
  folder = tmp_path / "run"
  life = Life.start(folder, cache=cache, steps=STEPS, processes=2, devices=2)
  life.end(PATIENCE)
  (before,) = records.read(folder / "results.jsonl")
  (folder / "run/record.json").unlink()
  (folder / "results.jsonl").unlink()  # or nothing would be run again
  taken = life.steps()
  Life.start(folder, cache=cache, steps=STEPS).end(PATIENCE)
  (again,) = records.read(folder / "results.jsonl")
  assert again["losses"] == before["losses"]
  for name in ("id", "ood", "mean_ood", "worst_ood"):
    assert again["metrics"][name] == before["metrics"][name]
  for name, scores in before["metrics"]["details"].items():
    # A device that has all images of a batch rounds otherwise than four.
    nll = again["metrics"]["details"][name]["nll"]
    assert nll == pytest.approx(scores["nll"], rel=1e-6)
  assert life.steps() == taken  # no step was left to take


def test_a_sweep_of_two_processes_is_run_once(tmp_path, cache):
  """Also by a process that has the lines from the first one alone."""
  grid = ("--set", "gmixout.learning_rate=0.01,0.1", "--seeds", "0")
  for _ in range(2):
    life = Life.start(
      tmp_path, *grid, command="sweep", cache=cache, steps=2, processes=2
    )
    life.end(PATIENCE)
    lines = records.read(tmp_path / "results.jsonl")
    assert [
      (line["seed"], line["config"]["method"]["learning_rate"])
      for line in lines
    ] == [(0, 0.01), (0, 0.1)]
  assert "2 of 2 lines are in" in (tmp_path / "log_0").read_text()
  assert "Traceback" not in (tmp_path / "log_1").read_text()


def test_kills_are_survived(tmp_path):
  survived, tried = torture.torture(
    tmp_path, kills=1, steps=12, patience=PATIENCE
  )
  assert tried > 0
  assert survived == tried


def test_different_weights_are_detected(tmp_path):
  """What the harness itself is worth: it sees one bit, and one loss."""
  for name in ("alone", "killed"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "weights_0.safetensors").write_bytes(b"\0\1")
    records.append(
      tmp_path / name / "results.jsonl",
      {
        "config": {}, "seed": 0, "metrics": {}, "notes": {}, "losses": [1.0],
        "stats": {"steps_per_second": hash(name) % 7, "first_step_seconds": 1},
      },
    )  # fmt: skip
  assert torture._same(tmp_path, torture.KINDS[0])
  (tmp_path / "killed/weights_0.safetensors").write_bytes(b"\0\0")
  assert not torture._same(tmp_path, torture.KINDS[0])
  (tmp_path / "killed/weights_0.safetensors").write_bytes(b"\0\1")
  (record,) = records.read(tmp_path / "killed/results.jsonl")
  record["losses"] = [1.5]
  (tmp_path / "killed/results.jsonl").unlink()
  records.append(tmp_path / "killed/results.jsonl", record)
  assert not torture._same(tmp_path, torture.KINDS[0])
