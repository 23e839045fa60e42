"""Runs that stop anywhere and go on: the same weights, bit for bit."""

import dataclasses
import os
import signal

import jax
import numpy as np
import optax
import pytest

from experiments import methods, train
from experiments.methods import Method
from experiments.methods.flyp import FLYP
from experiments.methods.gmixout import GMixout
from experiments.methods.model_soups import UniformSoup
from experiments.reporting import records
from experiments.tasks.task import Opened
from experiments.training import loop, train_step
from experiments.training.run_checkpoints import Stopped
from experiments.training.runs import Runs, Saving
from gmixout_jax.checkpoint import Checkpoints
from gmixout_jax.clip import CheckpointError
from tests.combinations import EXHAUSTIVE
from tests.experiments import tiny

STEPS = 11


@dataclasses.dataclass(frozen=True)
class Snapping(Method):
  """Adam whose snapshots are looked at."""

  def transform(self, params, schedule, key):
    return optax.adam(schedule(1e-2))

  def snapshots(self, steps):
    return (2, 5, 10)  # not in the order of their names


def task(steps=STEPS, model=tiny.classifier):
  return Opened(model=model(), source=tiny.source(), steps=steps, batch_size=4)


def run(method, folder=None, stops=(), model=tiny.classifier):
  """A run that is stopped after each of some steps, and then goes on."""
  for stop in (*stops, None):
    at = None
    if folder is not None:
      at = Saving(folder, every=3, stop=lambda step, s=stop: step == s)
    runs = Runs(task(model=model), [method], saving=at)
    if stop is None:
      return runs.outcome(method), runs
    with pytest.raises(Stopped, match=f"after {stop} of {STEPS} steps"):
      runs.outcome(method)


def weights(outcome):
  return jax.tree.leaves(loop.weights_of(outcome.model))


@pytest.mark.parametrize(
  ("method", "model"),
  [
    pytest.param(GMixout(resample_every=2), tiny.classifier, marks=EXHAUSTIVE),
    (GMixout(resample_every=2, compact=True), tiny.classifier),
    pytest.param(Snapping(), tiny.classifier, marks=EXHAUSTIVE),
    # Trains another model than it exports.
    pytest.param(FLYP(), tiny.words, marks=EXHAUSTIVE),
  ],
  ids=["gmixout", "compact", "snapshots", "flyp"],
)
def test_a_resumed_run_ends_as_one_left_alone(
  tmp_path, monkeypatch, method, model
):
  monkeypatch.setitem(methods.METHODS, "snapping", Snapping)
  alone, alone_runs = run(method, model=model)
  resumed, resumed_runs = run(method, tmp_path, stops=(1, 10), model=model)
  for ours, theirs in zip(weights(alone), weights(resumed), strict=True):
    np.testing.assert_array_equal(ours, theirs)
  np.testing.assert_array_equal(alone.losses, resumed.losses)
  for field in dataclasses.fields(alone.cost):
    if "second" not in field.name:  # all but what is timed
      name = field.name
      assert getattr(alone.cost, name) == getattr(resumed.cost, name)
  ((left, _),) = alone_runs._done.values()
  ((right, _),) = resumed_runs._done.values()
  jax.tree.map(np.testing.assert_array_equal, left, right)


def test_finished_runs_of_a_method_are_not_trained_again(tmp_path, monkeypatch):
  soup = UniformSoup(of=GMixout(resample_every=2), runs=2)
  first, _ = run(soup, tmp_path)
  monkeypatch.setattr(
    train_step.Shared, "__call__", lambda *_: pytest.fail("trained")
  )
  again, _ = run(soup, tmp_path)
  for ours, theirs in zip(weights(first), weights(again), strict=True):
    np.testing.assert_array_equal(ours, theirs)
  assert first.cost == again.cost  # timings too: they are remembered
  assert again.cost.step_flops > 0


def test_the_best_on_held_out_images_is_kept_apart(tmp_path):
  _, runs = run(GMixout(resample_every=2), tmp_path)
  with Checkpoints(tmp_path / "run_00", config=None) as checkpoints:
    steps, best = checkpoints.steps, checkpoints.best
    scores = {step: checkpoints._score(step) for step in steps}
  assert steps[-1] == STEPS
  assert len(steps) <= 3  # the newest two, and the best
  assert scores[best] == max(scores.values())
  ((_, fitted),) = runs._done.values()
  validation = runs.task.source.validation
  logits = np.asarray(fitted.model(validation.images))
  accuracy = np.mean(logits.argmax(-1) == validation.labels)
  assert scores[STEPS] == pytest.approx(accuracy)


def test_a_run_of_another_method_is_refused(tmp_path):
  run(GMixout(resample_every=2), tmp_path)
  with pytest.raises(
    CheckpointError, match="config 'run/resample_every' is 2 there and 3 here"
  ):
    run(GMixout(resample_every=3), tmp_path)


def test_save_every_is_checked(tmp_path):
  runs = Runs(task(), [GMixout()], saving=Saving(tmp_path, every=0))
  with pytest.raises(ValueError, match=r"save_every must be at least 1.* 0"):
    runs.outcome(GMixout())


@pytest.fixture
def command(tmp_path, monkeypatch):
  tiny.use_tiny_task(monkeypatch)

  def main(name, *more):
    arguments = [
      *("gmixout", "--batch-size", "4", "--steps", "6"),
      *("--results", str(tmp_path / name / "results.jsonl")),
      *("--checkpoint", str(tmp_path / name / "run"), "--save-every", "2"),
      *more,
    ]
    train.main(train.parse(arguments))

  return main


def test_sigterm_saves_and_the_same_command_goes_on(
  tmp_path, command, capsys, monkeypatch
):
  command("alone")
  fit, killed = loop.fit, []

  def fit_and_signal(*args, progress, **kwargs):
    def signalling(step, loss):
      progress(step, loss)
      if step == 2 and not killed:
        killed.append(step)
        os.kill(os.getpid(), signal.SIGTERM)

    return fit(*args, progress=signalling, **kwargs)

  monkeypatch.setattr(loop, "fit", fit_and_signal)
  capsys.readouterr()
  with pytest.raises(SystemExit) as ended:
    command("stopped")
  assert ended.value.code == 143
  shown = " ".join(capsys.readouterr().out.split())
  assert "stopped as asked after 4 of 6 steps" in shown
  assert not (tmp_path / "stopped/results.jsonl").exists()
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  for _ in range(2):  # the second time there is nothing left to do
    command("stopped")
    (alone,) = records.read(tmp_path / "alone/results.jsonl")
    (stopped,) = records.read(tmp_path / "stopped/results.jsonl")
    for key in ("config", "seed", "metrics", "losses"):
      assert alone[key] == stopped[key]


def test_a_missing_line_is_appended_on_resume(tmp_path, command, monkeypatch):
  def die(*args):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(records, "append", die)
    with pytest.raises(KeyboardInterrupt):
      command("run")
  command("run")
  assert len(records.read(tmp_path / "run/results.jsonl")) == 1


def test_a_finished_run_of_another_seed_is_refused(command):
  command("run")
  with pytest.raises(SystemExit, match="seed is 0 there and 1 here"):
    command("run", "--seed", "1")
