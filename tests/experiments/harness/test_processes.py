"""Tests `experiments/harness/processes.py` without any process."""

import pytest
import submitit

from experiments.harness import processes
from experiments.harness.cell import Cell
from experiments.training.run_checkpoints import Stopped
from tests.experiments.harness.small import (
  FULL,
  Small,
  display,
  places,
)


class Executor:
  """Takes jobs, and begins none."""

  def __init__(self, kind):
    self.kind, self.jobs = kind, []

  def update_parameters(self, **settings):
    pass

  def submit(self, work):
    job = self.kind(work)
    self.jobs.append(job)
    return job


class Waiting:
  """A job that goes on until it is cancelled."""

  def __init__(self, work):
    self.work, self.cancelled = work, False

  def done(self):
    return False

  def cancel(self):
    self.cancelled = True


class Saving(Waiting):
  """A job that looks a few times until it finds that it is to stop."""

  looks, saved = 0, False

  def done(self):
    self.looks += self.work.places.stop(1)
    self.saved |= self.looks > 2 and not self.cancelled
    return self.saved


@pytest.mark.parametrize("job", [Waiting, Saving])
def test_a_sweep_that_is_asked_to_stop_stops_its_jobs(
  tmp_path, monkeypatch, job
):
  executor = Executor(job)
  monkeypatch.setattr(submitit, "AutoExecutor", lambda **settings: executor)
  monkeypatch.setattr(processes, "SECONDS_TO_SAVE", 1)
  (tmp_path / "saved" / "jobs").mkdir(parents=True)
  where = places(
    tmp_path,
    checkpoint=tmp_path / "saved",
    stop=lambda step: len(executor.jobs) == 2,
  )
  task = Small()
  cells = [Cell(task, FULL, seed) for seed in (0, 1, 2)]
  with pytest.raises(Stopped, match=r"the same command goes on from .*saved"):
    processes.spread(
      cells, where, display(), workers=processes.Workers(2), failures=[]
    )
  assert [job.cancelled for job in executor.jobs] == [True, True]
  if job is Saving:  # and not before
    assert [job.saved for job in executor.jobs] == [True, True]
  for job in executor.jobs:  # where no signal arrives, either
    assert job.work.places.stop(1)
    with pytest.raises(Stopped, match="stopped as asked after 1 of"):
      job.work()


def test_a_job_of_another_sweep_goes_on(tmp_path):
  """Each has a file of its own, that the next command does not find."""
  asked = processes.StopFile(tmp_path / "stop-1")
  (tmp_path / "stop-2").touch()
  assert not asked(1)
