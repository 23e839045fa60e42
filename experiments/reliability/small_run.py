"""A run of `experiments.train` that takes seconds: for faults to be tried on.

`Life` starts it in processes of its own, one or several, on made-up images and
a small network, and can kill them. All else is the real thing: command line,
loop, checkpoints, results, and `jax.distributed` between the processes.
"""

import dataclasses
import functools
import multiprocessing
import os
import pathlib
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from experiments import sweep, train
from experiments.data.augmentation import Policy
from experiments.data.source import hold_out
from experiments.data.split import Split
from experiments.models.classifier import Classifier
from experiments.reporting import records
from experiments.task_options import TaskOptions
from experiments.tasks.task import Opened
from experiments.training import loop
from experiments.training.run_checkpoints import Stopped
from gmixout_jax.clip import weights

STEPS, SAVE_EVERY, PAUSE = 60, 2, 0.02

Fault = Literal["full", "read-only"]
"""Of the disk, from when a process has started."""

_ROOM, _NOBODY = 12_000, 65534
"""Bytes that a file may have on a full disk; a user who may write nowhere."""

_SIZE, _CLASSES, _WIDTH = 8, 3, 16


class Mlp(nnx.Module):
  """A backbone that compiles fast."""

  def __init__(self, rngs: nnx.Rngs, dtype: str):
    narrow = {"dtype": dtype, "rngs": rngs}  # its weights are float32
    self.embedding = nnx.Linear(_SIZE * _SIZE * 3, _WIDTH, **narrow)
    self.blocks = nnx.List([nnx.Linear(_WIDTH, _WIDTH, **narrow)])

  def features(self, pixels: jax.Array) -> jax.Array:
    """Features of normalised pixels."""
    x = self.embedding(pixels.reshape(len(pixels), -1))
    for block in self.blocks:
      x = x + nnx.relu(block(x))
    return x


@dataclasses.dataclass(frozen=True, eq=False)
class NotedSplit(Split):
  """Notes which images are read.

  Attributes:
    noted: The file, one index per line.
  """

  noted: pathlib.Path = pathlib.Path(os.devnull)

  def __getitem__(self, index: int) -> dict[str, Any]:
    _note(self.noted, index)
    return super().__getitem__(index)

  def drawn(
    self, index: int, policy: Policy, rng: np.random.Generator
  ) -> dict[str, Any]:
    """Likewise, for training."""
    _note(self.noted, index)
    return super().drawn(index, policy, rng)

  def take(self, indices: np.ndarray) -> Split:
    """The split of these images, noted likewise."""
    part = super().take(indices)
    return NotedSplit(
      part.images, part.labels, part.class_names, noted=self.noted
    )


@dataclasses.dataclass(frozen=True)
class MadeUp:
  """Random images whose classes differ, and a network that compiles fast.

  Attributes:
    options: Of the command: steps, batch size and dtype.
    noted: The file that says which images are read.
  """

  options: TaskOptions
  noted: pathlib.Path

  @property
  def config(self) -> records.Record:
    """See `Task`."""
    options = self.options
    return {
      "data": "made up",
      "steps": options.steps,
      "batch_size": options.batch_size,
      "dtype": options.dtype,
    }

  def open(self, seed: int) -> Opened:
    """See `Task`."""
    rng = np.random.default_rng(0)
    names = tuple(f"class {label}" for label in range(_CLASSES))

    def split(per_class: int, noted: pathlib.Path) -> Split:
      labels = np.repeat(np.arange(_CLASSES, dtype=np.int32), per_class)
      noise = rng.integers(0, 60, (len(labels), _SIZE, _SIZE, 3))
      images = (60 * labels[:, None, None, None] + noise).astype(np.uint8)
      return NotedSplit(images, labels, names, noted=noted)

    source = split(30, self.noted)
    return Opened(
      model=Classifier.with_zero_head(
        Mlp(nnx.Rngs(0), self.options.dtype), width=_WIDTH, classes=_CLASSES
      ),
      source=hold_out(source, fraction=0.2, seed=seed),
      steps=self.options.steps or STEPS,
      batch_size=self.options.batch_size or 8,
      seed=seed,
      ood={"shifted": split(5, pathlib.Path(os.devnull))},
    )


def work(
  command_name: str,
  folder: pathlib.Path,
  process: int,
  arguments: list[str],
  devices: int,
  cache: pathlib.Path,
  fault: Fault | None,
) -> None:
  """One process of a run; called in a process of its own."""
  log = os.open(
    folder / f"log_{process}", os.O_WRONLY | os.O_CREAT | os.O_APPEND
  )
  os.dup2(log, 1)
  os.dup2(log, 2)
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", devices)
  jax.config.update("jax_compilation_cache_dir", str(cache))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  noted = folder / f"read_{process}"
  TaskOptions.task = lambda self: MadeUp(self, noted)  # pyright: ignore
  fit = loop.fit

  def noting(*args: Any, progress: Any, **kwargs: Any) -> loop.Fitted:
    def note(step: int, loss: float) -> None:
      progress(step, loss)
      _note(folder / f"progress_{process}", step)
      time.sleep(PAUSE)

    fitted = fit(*args, progress=note, **kwargs)
    tensors = weights.parameters(fitted.model)
    weights.save(
      {name: np.asarray(leaf[...]) for name, leaf in tensors.items()},
      folder / f"weights_{process}.safetensors",
    )
    return fitted

  loop.fit = noting
  if fault is not None:
    _break_disk(fault, folder)
  command = {"train": train, "sweep": sweep}[command_name]
  command.main(command.parse(arguments))
  sys.stdout.flush()


@dataclasses.dataclass
class Life:
  """The processes of a run, from one start to their end.

  Attributes:
    folder: Of the run; it is made if need be.
    processes: In order of their rank.
  """

  folder: pathlib.Path
  processes: list[BaseProcess]

  @classmethod
  def start(
    cls,
    folder: pathlib.Path,
    *more: str,
    processes: int = 1,
    devices: int = 1,
    cache: pathlib.Path,
    steps: int = STEPS,
    command: str = "train",
    method: Sequence[str] = ("gmixout", "--resample-every", "3"),
    fault: Fault | None = None,
  ) -> "Life":
    """Starts or resumes the run of a folder.

    Args:
      folder: Where checkpoints, results, weights and logs go.
      *more: Further arguments.
      processes: How many.
      devices: Of each process.
      cache: For compiled programs.
      steps: Of the run.
      command: "train"; or "sweep", for arguments that both understand.
      method: With its flags, of which a sweep has only the name.
      fault: Of the disk, in all processes.
    """
    (folder / "run").mkdir(parents=True, exist_ok=True)
    for path in (folder / "run", *(folder / "run").rglob("*")):
      if path.is_dir():
        path.chmod(0o755)  # if a read-only disk was before
    name, *flags = method
    arguments = [
      *(name, "--batch-size", "8"),
      *("--steps", str(steps), "--save-every", str(SAVE_EVERY)),
      *("--checkpoint", str(folder / "run")),
      *("--results", str(folder / "results.jsonl")),
      *more,
      *(flags if command == "train" else ()),
    ]
    if processes > 1:
      arguments += ["--distributed", "--processes", str(processes)]
      arguments += ["--coordinator", f"127.0.0.1:{_free_port()}"]
    started = []
    for rank in range(processes):
      rank_of = ["--process", str(rank)] if processes > 1 else []
      started.append(
        _server().Process(
          target=work,
          args=(
            *(command, folder, rank, arguments + rank_of, devices, cache),
            fault,
          ),
        )
      )
    for process in started:
      process.start()
    return cls(folder, started)

  def steps(self) -> int:
    """How many steps have been taken, repeated ones included."""
    path = self.folder / "progress_0"
    return len(path.read_text().split()) if path.exists() else 0

  def alive(self) -> bool:
    """Whether any process still runs."""
    return any(process.is_alive() for process in self.processes)

  def kill(self, first: int = 0, delay: float = 0.0) -> None:
    """SIGKILL to one process, and a little later to the others."""
    self.processes[first].kill()
    time.sleep(delay)
    for process in self.processes:
      process.kill()
    for process in self.processes:
      process.join()

  def fail(self, seconds: float) -> None:
    """Waits until all processes that were not killed have ended by themselves.

    Raises:
      RuntimeError: If one takes too long, or ends as if all was well.
    """
    until = time.monotonic() + seconds
    for process in self.processes:
      process.join(max(until - time.monotonic(), 0))
    codes = [process.exitcode for process in self.processes]
    if any(code in (None, 0) for code in codes):
      self.kill()
      raise RuntimeError(f"{self.folder}: exit codes {codes}, not errors.")

  def end(self, seconds: float, *, stopped: bool = False) -> None:
    """Waits until the run has ended.

    Args:
      seconds: For how long.
      stopped: Whether it was asked to stop, and may have.

    Raises:
      RuntimeError: If it failed or takes too long; with the end of the log.
    """
    until = time.monotonic() + seconds
    for process in self.processes:
      process.join(max(until - time.monotonic(), 0))
    codes = [process.exitcode for process in self.processes]
    right = (0, Stopped.STATUS) if stopped else (0,)
    if any(code not in right for code in codes):
      self.kill()
      logs = "\n".join(
        path.read_text()[-3000:] for path in sorted(self.folder.glob("log_*"))
      )
      raise RuntimeError(f"{self.folder}: exit codes {codes}.\n{logs}")


@functools.cache
def _server() -> Any:
  """Forks processes in which everything is imported, but JAX not started."""
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload([__name__])
  return context


def _break_disk(fault: Fault, folder: pathlib.Path) -> None:
  """Lets nothing of some size, or nothing at all, be written from now on."""
  if fault == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_ROOM, _ROOM))
  elif os.geteuid() == 0:  # whom permissions do not stop
    for path in (folder, folder / "run"):
      path.chmod(0o755)
    os.seteuid(_NOBODY)
  else:
    for path in (folder / "run").rglob("*"):
      if path.is_dir():
        path.chmod(0o555)
    (folder / "run").chmod(0o555)


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def _note(path: pathlib.Path, value: int) -> None:
  with path.open("a") as file:
    file.write(f"{value}\n")
