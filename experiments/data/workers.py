"""The threads and processes that decode images.

Decoders work outside Python's global lock, so threads suffice for a dozen of
CPUs; what remains in Python, a tenth of the work, keeps more of them waiting.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator

_PER_PROCESS = 16
"""Threads of a process that do not yet wait for each other."""


@dataclasses.dataclass(frozen=True)
class Workers:
  """How many threads and processes decode images.

  Results do not depend on it: batch t is a function of the seed and t alone.

  Attributes:
    threads: In each process; by default one for each CPU that this process may
      use, shared among the processes.
    processes: Additional processes; 0 decodes in this one. By default one for
      every 16 CPUs, and none up to 16 CPUs.

  Raises:
    ValueError: If one is out of range; it quotes the value.
  """

  threads: int | None = None
  processes: int | None = None

  def __post_init__(self):
    if self.threads is not None and not 1 <= self.threads <= 1024:
      raise ValueError(
        f"--decode-threads must be from 1 to 1024, got {self.threads}."
      )
    if self.processes is not None and not 0 <= self.processes <= 256:
      raise ValueError(
        f"--decode-processes must be from 0 to 256, got {self.processes}."
      )

  def resolved(self, cpus: int | None = None) -> tuple[int, int]:
    """Threads in each process, and processes besides this one.

    Args:
      cpus: That may be used; by default `allowed_cpus`.

    Example:
      >>> Workers().resolved(cpus=12), Workers().resolved(cpus=64)
      ((12, 0), (16, 4))
      >>> Workers(processes=2).resolved(cpus=12)
      (6, 2)
    """
    cpus = allowed_cpus() if cpus is None else cpus
    processes = self.processes
    if processes is None:
      single = cpus <= _PER_PROCESS or self.threads is not None
      processes = 0 if single else math.ceil(cpus / _PER_PROCESS)
    threads = self.threads or max(1, cpus // max(1, processes))
    return threads, processes


_chosen = Workers()


def choose(workers: Workers) -> None:
  """Sets who decodes in this process, in training and evaluation alike."""
  global _chosen
  _chosen = workers


def chosen() -> Workers:
  """Who decodes; see `choose`."""
  return _chosen


def allowed_cpus() -> int:
  """CPUs that this process may use: by its affinity, and by its cgroups.

  Of a machine of 64 CPUs a container, or a task of Slurm, often has a few.
  """
  allowed = len(os.sched_getaffinity(0))
  for quota in _quotas():
    allowed = min(allowed, max(1, math.ceil(quota)))
  return allowed


def _quotas(
  own: pathlib.Path = pathlib.Path("/proc/self/cgroup"),
  mount: pathlib.Path = pathlib.Path("/sys/fs/cgroup"),
) -> Iterator[float]:
  """What each cgroup around this process grants it, in CPUs.

  Args:
    own: Which cgroups those are, "number:controllers:path" a line.
    mount: Where they are described.
  """
  try:
    lines = own.read_text().splitlines()
  except OSError:  # not Linux
    return
  for line in lines:
    _, controllers, path = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
      continue
    root = mount / controllers if controllers else mount  # version 1, or 2
    inner = root / path.lstrip("/")
    # Seen from within a container, the path may lead nowhere: its root counts.
    for folder in (inner, *inner.parents):
      yield from _quota(folder)
      if folder == root:
        break


def _quota(folder: pathlib.Path) -> Iterator[float]:
  for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
    try:
      words = [w for name in names for w in (folder / name).read_text().split()]
      quota, period = map(float, words)
    except (OSError, ValueError):  # no such file, or "max": no limit
      continue
    if quota > 0 and period > 0:  # -1 is none
      yield quota / period
