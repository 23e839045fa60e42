"""A sweep of twelve cells in a process of its own, to be killed."""

import functools
import multiprocessing
import os
import time

from experiments import sweep
from experiments.harness import measured
from experiments.reporting import records
from experiments.task_options import TaskOptions
from tests.experiments.tiny import TinyTask

SETTINGS, METHODS, SEEDS = 3, 2, 2
CELLS = SETTINGS * METHODS * SEEDS


def arguments(folder, *, saves):
  """Of the sweep: GMixout and WiSE-FT on it, with three anchors."""
  saved = ("--checkpoint", str(folder / "saved"), "--save-every", "2")
  return [
    *("gmixout", "gmixout+wise_ft", "--seeds", "0", "1"),
    *("--set", "gmixout.anchor_decay=0,0.3,0.9", "wise_ft.alpha=0.3"),
    *("--steps", "3", "--batch-size", "4"),
    *("--results", str(folder / "results.jsonl")),
    *(saved if saves else ()),
  ]


def lines(folder):
  """What the results file holds so far."""
  path = folder / "results.jsonl"
  return records.read(path) if path.exists() else []


def start(folder, *, saves):
  """Starts the sweep; what it prints goes to a log in the folder."""
  process = _server().Process(target=_work, args=(folder, saves))
  process.start()
  return process


def _work(folder, saves):
  log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  os.dup2(log, 1)
  os.dup2(log, 2)
  TaskOptions.task = lambda self: TinyTask(self)
  line = measured.line

  def slowly(*given):
    time.sleep(0.1)
    return line(*given)

  measured.line = slowly
  sweep.main(sweep.parse(arguments(folder, saves=saves)))


@functools.cache
def _server():
  """Forks processes in which all is imported, but JAX not started."""
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload([__name__])
  return context
