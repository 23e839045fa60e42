"""Damages files and command lines, and sees what is made of them.

  python -m experiments.reliability.fuzz --seconds 300 --seed 0
  make fuzz

Of every kind of input a good one is written, damaged by a seed, and read. It
must be refused by an error of a user's input that names it, or be read as
something that may be right, within 20 seconds and a gigabyte. A table says how
often it was which; each case that went wrong is printed with the flags that
repeat it: --kind NAME --seed SEED --first NUMBER --cases 1.
"""

import dataclasses
import logging
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import rich
import rich.progress
import rich.table
from rich.markup import escape

from experiments import command_line
from experiments.reliability import (
  fuzz_commands,
  fuzz_data,
  fuzz_images,
  fuzz_models,
  fuzz_runs,
  fuzz_tfds,
)
from experiments.reliability.reader import Reader

SECONDS, STUCK, BYTES = 20, 90, 2**30
"""What a case may take: seconds, then those until it is killed; memory."""

Counts = dict[str, Counter[str]]

READERS = {
  reader.name: reader
  for kinds in (
    *(fuzz_models, fuzz_runs, fuzz_images, fuzz_data, fuzz_tfds),
    fuzz_commands,
  )
  for reader in kinds.READERS
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """What to try.

  Attributes:
    seconds: For all kinds together.
    seed: Of the damage.
    kind: One kind alone, as the table calls it.
    first: The number of the first case of each kind; 0 is undamaged.
    cases: How many of each kind; by default as many as there is time for.
  """

  seconds: float = 300.0
  seed: int = 0
  kind: str | None = None
  first: int = 0
  cases: int | None = None


class Attempt(NamedTuple):
  """What became of one damaged input.

  Attributes:
    number: Of the case.
    outcome: "read", "refused" or "wrong".
    why: What was raised, or is wrong.
  """

  number: int
  outcome: str
  why: str


class _TooLong(BaseException):
  pass


class _Fetched(BaseException):
  pass


def _no_network(host: Any, *_: Any, **__: Any) -> Any:
  raise _Fetched(f"it looked for {host!r} on the network")


def attempt(
  reader: Reader, template: pathlib.Path, seed: int, n: int
) -> Attempt:
  """Damages a copy of good files, and reads it.

  Args:
    reader: Of the kind.
    template: The folder of the good ones.
    seed: Of the run.
    n: The case; 0 damages nothing.
  """
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name) / "case"
    shutil.copytree(template, folder, symlinks=True)
    files = sorted(p for p in folder.glob(reader.damaged) if p.is_file())
    if n:
      rng = random.Random(f"{reader.name} {seed} {n}")
      if reader.disturb is not None:
        reader.disturb(folder, rng)
      else:
        file = rng.choice(files)
        file.write_bytes(reader.damage(file.read_bytes(), rng))
    try:
      found = reader.read(folder)
    except command_line.WRONG_INPUT as error:
      named = [str(folder), *(file.name for file in files)]
      if isinstance(error, TypeError) or not n:
        return Attempt(n, "wrong", repr(error))
      if reader.names_input and not any(word in str(error) for word in named):
        return Attempt(n, "wrong", f"it does not name the input: {error!r}")
      return Attempt(n, "refused", str(error))
    if not reader.right(found):
      return Attempt(n, "wrong", f"read as {found!r}")
    return Attempt(n, "read", "")


def _bounded(
  reader: Reader, template: pathlib.Path, seed: int, n: int
) -> Attempt:
  """The same, within time and memory."""

  def too_long(*_: Any) -> None:
    raise _TooLong

  signal.signal(signal.SIGALRM, too_long)
  signal.alarm(SECONDS)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  try:
    case = attempt(reader, template, seed, n)
  except _TooLong:
    return Attempt(n, "wrong", f"it took more than {SECONDS} s")
  except BaseException as error:
    return Attempt(n, "wrong", repr(error))
  finally:
    signal.alarm(0)
  taken = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
  if n and taken > BYTES:
    return Attempt(n, "wrong", f"it took {taken / 2**20:.0f} MiB more")
  return case


def _work(pipe: Connection) -> None:
  """A process that does cases, and may be killed by what it reads."""
  logging.disable()
  socket.getaddrinfo = _no_network
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
  limit = pages * resource.getpagesize() + 8 * BYTES
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  while True:
    name, *case = pipe.recv()
    pipe.send(_bounded(READERS[name], *case))


class Worker:
  """A process for cases; another one takes its place if it dies."""

  def __init__(self):
    self._context = multiprocessing.get_context("forkserver")
    # By its name: run as a script it would be imported anew by each process.
    self._context.set_forkserver_preload(["experiments.reliability.fuzz"])
    self._process: Any = None
    self._pipe: Any = None

  def do(self, name: str, template: pathlib.Path, seed: int, n: int) -> Attempt:
    """A case of a kind, by `attempt`, whatever becomes of the process."""
    if self._process is None:
      self._pipe, theirs = self._context.Pipe()
      self._process = self._context.Process(target=_work, args=(theirs,))
      self._process.start()
      theirs.close()
    try:
      self._pipe.send((name, template, seed, n))
      if self._pipe.poll(STUCK):
        return self._pipe.recv()
      why = f"it was stuck for {STUCK} s"
    except (EOFError, ConnectionError):
      self._process.join()
      why = f"the process ended with {self._process.exitcode}"
    self.end()
    return Attempt(n, "wrong", why)

  def end(self) -> None:
    """Kills the process, if there is one."""
    if self._process is not None:
      self._process.kill()
      self._process.join()
      self._process = None


def cases(
  name: str,
  template: pathlib.Path,
  config: Config,
  seconds: float,
  worker: Worker,
) -> Iterator[Attempt]:
  """Cases of one kind, each done, for some time or up to a number."""
  last = float("inf") if config.cases is None else config.first + config.cases
  n, until = config.first, float("inf")
  while n < last and time.monotonic() < until:
    yield worker.do(name, template, config.seed, n)
    if n == config.first:  # setting up is not counted
      until = time.monotonic() + seconds
    n += 1


def run(
  config: Config,
) -> tuple[dict[str, Counter[str]], dict[str, list[Attempt]]]:
  """Counts by kind and outcome, and the cases that went wrong.

  Raises:
    ValueError: If there is no such kind, or no time.
  """
  if config.kind is not None and config.kind not in READERS:
    raise ValueError(
      f"--kind must be one of {', '.join(READERS)}, got {config.kind!r}."
    )
  if not config.seconds > 0:
    raise ValueError(f"--seconds must be more than 0, got {config.seconds}.")
  os.environ["PYTHONWARNINGS"] = "ignore"  # of all that decodes what is damaged
  names = list(READERS) if config.kind is None else [config.kind]
  counts: Counts = {}
  wrong: dict[str, list[Attempt]] = {}
  worker = Worker()
  for name in rich.progress.track(names, "Damaging", transient=True):
    counts[name], wrong[name] = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
      template = pathlib.Path(folder) / "good"
      template.mkdir()
      READERS[name].make(template)
      seconds = config.seconds / len(names)
      for case in cases(name, template, config, seconds, worker):
        counts[name][case.outcome] += 1
        if case.outcome == "wrong":
          wrong[name].append(case)
  worker.end()
  return counts, wrong


def table(counts: Counts) -> rich.table.Table:
  """Kind, tried, refused, read, wrong."""
  view = rich.table.Table("kind")
  for name in ("tried", "refused", "read", "wrong"):
    view.add_column(name, justify="right")
  total: Counter[str] = Counter()
  for name, found in counts.items():
    total += found
    _add(view, name, found)
  view.add_section()
  _add(view, "all", total)
  return view


def _add(view: rich.table.Table, name: str, found: Counter[str]) -> None:
  shown = [found[key] for key in ("refused", "read", "wrong")]
  view.add_row(escape(name), *map(str, (found.total(), *shown)))


def main(config: Config) -> None:
  """Prints the table, and what went wrong."""
  with command_line.typed_errors():
    counts, wrong = run(config)
  rich.print(table(counts))
  for name, found in wrong.items():
    for case in found[:5]:
      print(
        f"wrong: --kind {name!r} --seed {config.seed} --first {case.number}"
        f" --cases 1: {case.why[:400]}"
      )
  sys.exit(any(wrong.values()))


if __name__ == "__main__":
  main(command_line.parse(Config, description=__doc__))
