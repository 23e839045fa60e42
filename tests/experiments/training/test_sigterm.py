"""Who catches SIGTERM: a run that is saved, and no other."""

import signal

import pytest

from experiments import sweep, train
from experiments.harness import measured
from experiments.pretraining import pretrain_clip
from experiments.training.run_checkpoints import Stopped
from tests.experiments import tiny


def spied(seen):
  """Stands in for what trains: notes who would get the signal."""

  def spy(*args, **kwargs):
    seen.append(signal.getsignal(signal.SIGTERM))
    raise Stopped("enough is seen")

  return spy


def trained(monkeypatch, seen, options):
  tiny.use_tiny_task(monkeypatch)
  monkeypatch.setattr(measured, "line", spied(seen))
  train.main(train.parse(["gmixout", *options]))


def swept(monkeypatch, seen, options):
  tiny.use_tiny_task(monkeypatch)
  monkeypatch.setattr(measured, "line", spied(seen))
  sweep.main(sweep.parse(["gmixout", *options]))


def pretrained(monkeypatch, seen, options):
  monkeypatch.setattr(pretrain_clip, "run", spied(seen))
  pretrain_clip.main(pretrain_clip.parse(["digits", "--no-locked", *options]))


@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("command", [trained, swept, pretrained])
def test_sigterm_is_caught_where_a_run_is_saved(
  tmp_path, monkeypatch, command, saves
):
  seen = []
  options = ["--checkpoint", str(tmp_path / "run")] if saves else []
  with pytest.raises(SystemExit) as ended:
    command(monkeypatch, seen, options)
  assert ended.value.code == 143  # as a shell says of who SIGTERM has ended
  (handler,) = seen
  assert (handler is not signal.SIG_DFL) == saves
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
