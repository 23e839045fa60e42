"""Two real processes on this machine, and runs that are killed and go on."""

import numpy as np
import pytest
import safetensors.numpy

from experiments import results, torture
from experiments.data.batches import batches
from experiments.small_run import Life
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


def test_two_processes_do_what_one_does(tmp_path, cache):
  """Four devices in two processes, against one device."""
  one = Life.start(tmp_path / "one", cache=cache, steps=STEPS)
  two = Life.start(
    tmp_path / "two", cache=cache, steps=STEPS, processes=2, devices=2
  )
  one.end(PATIENCE)
  two.end(PATIENCE)
  (alone,) = results.read(tmp_path / "one/results.jsonl")
  (shared,) = results.read(tmp_path / "two/results.jsonl")  # one line, not two
  assert alone["config"] == shared["config"]
  np.testing.assert_allclose(alone["losses"], shared["losses"], rtol=1e-4)
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
    np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def test_a_checkpoint_of_two_processes_resumes_in_one(tmp_path, cache):
  folder = tmp_path / "run"
  life = Life.start(folder, cache=cache, steps=STEPS, processes=2, devices=2)
  life.end(PATIENCE)
  (before,) = results.read(folder / "results.jsonl")
  (folder / "run/record.json").unlink()
  taken = life.steps()
  Life.start(folder, cache=cache, steps=STEPS).end(PATIENCE)
  first, again = results.read(folder / "results.jsonl")
  assert first == before
  assert again["losses"] == before["losses"]
  assert again["metrics"] == before["metrics"]
  assert life.steps() == taken  # no step was left to take


def test_kills_are_survived(tmp_path):
  survived, tried = torture.torture(
    tmp_path, kills=2, processes=1, steps=12, patience=PATIENCE
  )
  assert tried > 0
  assert survived == tried


def test_a_run_that_ends_otherwise_is_told_from_one_that_does_not(tmp_path):
  """What the harness itself is worth: it sees one bit, and one loss."""
  for name in ("alone", "killed"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "weights_0.safetensors").write_bytes(b"\0\1")
    results.append(
      tmp_path / name / "results.jsonl",
      {
        "config": {}, "seed": 0, "metrics": {}, "notes": {}, "losses": [1.0],
        "stats": {"steps_per_second": hash(name) % 7, "first_step_seconds": 1},
      },
    )  # fmt: skip
  assert torture._same(tmp_path, 1)
  (tmp_path / "killed/weights_0.safetensors").write_bytes(b"\0\0")
  assert not torture._same(tmp_path, 1)
  (tmp_path / "killed/weights_0.safetensors").write_bytes(b"\0\1")
  (record,) = results.read(tmp_path / "killed/results.jsonl")
  record["losses"] = [1.5]
  (tmp_path / "killed/results.jsonl").unlink()
  results.append(tmp_path / "killed/results.jsonl", record)
  assert not torture._same(tmp_path, 1)
