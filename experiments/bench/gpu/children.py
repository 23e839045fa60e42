"""Commands that may crash or hang, which does nothing to whoever runs them."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

_LINES, _WIDTH = 25, 400


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a command ended.

  Attributes:
    status: Its exit status, below zero for the signal that ended it; None if
      it ran out of time.
    output: All that it printed.
  """

  status: int | None
  output: str

  def problem(self, seconds: float) -> str | None:
    """What went wrong, in a few words; None if nothing did.

    Args:
      seconds: What the command was given.
    """
    if self.status is None:
      return f"stopped after {seconds:.0f} s"
    if self.status < 0:
      return f"ended by {signal.Signals(-self.status).name}"
    return f"ended with status {self.status}" if self.status else None

  def tail(self) -> str:
    """The last lines of the output, each cut where it is very long."""
    lines = self.output.rstrip().splitlines()[-_LINES:]
    return "\n".join(line[:_WIDTH] for line in lines)


def run(
  commands: Mapping[str, Sequence[str]],
  *,
  seconds: float,
  folder: pathlib.Path,
  cwd: pathlib.Path,
  env: Mapping[str, str],
) -> dict[str, Outcome]:
  """Runs commands at the same time, each in a group of processes of its own.

  Args:
    commands: By name.
    seconds: After so many those that still run are killed, with all that they
      have started.
    folder: Where their output goes while they run.
    cwd: Their working directory.
    env: Their environment.

  Returns:
    How each ended.
  """
  end = time.monotonic() + seconds
  statuses: dict[str, int | None] = {}
  with contextlib.ExitStack() as stack:
    started = {
      name: stack.enter_context(
        _started(command, folder / f"{name}.log", cwd, env)
      )
      for name, command in commands.items()
    }
    for name, process in started.items():
      try:
        statuses[name] = process.wait(max(0, end - time.monotonic()))
      except subprocess.TimeoutExpired:
        statuses[name] = None
  return {
    name: Outcome(status, (folder / f"{name}.log").read_text(errors="replace"))
    for name, status in statuses.items()
  }


@contextlib.contextmanager
def _started(
  command: Sequence[str],
  log: pathlib.Path,
  cwd: pathlib.Path,
  env: Mapping[str, str],
) -> Iterator[subprocess.Popen[bytes]]:
  """A process; at the end nothing is left of it and of what it has started."""
  with log.open("wb") as out:
    process = subprocess.Popen(
      command,
      cwd=cwd,
      env=dict(env),
      stdin=subprocess.DEVNULL,
      stdout=out,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
  try:
    yield process
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    # One that waits for a driver may outlive its kill for a while.
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(10)
