"""Kills small runs at random instants, and compares how they end.

  python -m experiments.reliability.torture --kills 100
  make torture

A run is killed, started again, killed again, ..., while it trains, while it
saves and while it does either in the background; then it is left to end. Its
weights must be those of a run left alone, bit for bit, and its line of results
the same but for the time. Where lives have different numbers of devices, sums
are in another order, and weights are the same to rounding.

The kinds are what is trained (GMixout, Mixout, a soup of two runs), on what
(one process, several devices, two processes) and what happens to it: SIGKILL to
all processes or to one of two, SIGTERM, a disk that is full or read-only.
"""

import dataclasses
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from typing import Literal, NamedTuple

import numpy as np
import rich
import rich.progress
import rich.table
from safetensors.numpy import load_file

from experiments import command_line
from experiments.reliability.small_run import Fault, Life
from experiments.reporting import records

GMIXOUT = ("gmixout", "--resample-every", "3")


class Kind(NamedTuple):
  """What is run, and what happens to it.

  Attributes:
    name: For the table.
    method: The method with its flags.
    more: Flags of the run.
    processes: How many.
    devices: Of each process, in one life after the other.
    fault: "kill" is SIGKILL to all processes, "kill one" to one of them, of
      which the others are to see it; "stop" is SIGTERM. Under "full" and
      "read-only" every second life cannot write, and is to end by itself.
  """

  name: str
  method: tuple[str, ...] = GMIXOUT
  more: tuple[str, ...] = ()
  processes: int = 1
  devices: tuple[int, ...] = (1,)
  fault: Literal["kill", "kill one", "stop", "full", "read-only"] = "kill"


KINDS = (
  Kind("one process"),
  Kind("two processes", processes=2),
  Kind("one of two processes", processes=2, fault="kill one"),
  Kind("Mixout", ("mixout",)),
  Kind("a soup of two runs", ("uniform_soup", "--runs", "2")),
  Kind("FSDP on four devices", more=("--sharding", "fsdp"), devices=(4,)),
  Kind(
    "four devices, then two, then one",
    more=("--sharding", "data"),
    devices=(4, 2, 1),
  ),
  Kind("SIGTERM", fault="stop"),
  Kind("SIGTERM to one of two", processes=2, fault="stop"),
  Kind("a full disk", fault="full"),
  Kind("a read-only disk", fault="read-only"),
)


@dataclasses.dataclass(frozen=True)
class Config:
  """What to try.

  Attributes:
    kills: How many faults, over all kinds.
    kinds: Some of them, by name; by default all.
    seed: Of the instants.
    patience: Seconds that a run may take to go on before it counts as stuck.
  """

  kills: int = 110
  kinds: tuple[str, ...] = ()
  seed: int = 0
  patience: float = 300.0


def torture(
  folder: pathlib.Path,
  kind: Kind = KINDS[0],
  *,
  kills: int,
  seed: int = 0,
  patience: float = 300.0,
  steps: int | None = None,
) -> tuple[int, int]:
  """Lets faults happen to a run, again and again.

  Args:
    folder: An empty one.
    kind: Of the run and its faults.
    kills: How many faults, at most: a run that has ended has none.
    seed: Of the instants.
    patience: See `Config`.
    steps: Of the run; by default enough for all faults.

  Returns:
    How many faults were survived, and how many there were: all, or none if the
    run ended differently. One that does not go on raises.
  """
  rng = random.Random(f"{kind.name} {seed}")
  steps = 5 * kills + 10 if steps is None else steps

  def start(name: str, devices: int, fault: Fault | None = None) -> Life:
    return Life.start(
      folder / name,
      *kind.more,
      method=kind.method,
      processes=kind.processes,
      devices=devices,
      cache=folder / "cache",
      steps=steps,
      fault=fault,
    )

  start("alone", kind.devices[0]).end(patience)
  tried = 0
  for number in rich.progress.track(range(kills), kind.name, transient=True):
    cannot_write = kind.fault in ("full", "read-only") and number % 2 == 1
    fault: Fault | None = kind.fault if cannot_write else None  # pyright: ignore
    life = start("killed", kind.devices[number % len(kind.devices)], fault)
    if cannot_write:
      life.fail(patience)
      tried += 1
      continue
    target = life.steps() + rng.randint(1, 6)
    until = time.monotonic() + patience
    while life.alive() and life.steps() < target and time.monotonic() < until:
      time.sleep(0.002)
    if not life.alive() or time.monotonic() >= until:
      life.end(0.0 if life.alive() else patience)  # says why, if it failed
      break  # all steps are taken
    time.sleep(rng.uniform(0, 0.06))
    _happen(life, kind, rng, patience)
    tried += 1
  start("killed", kind.devices[0]).end(patience)
  return (tried if _same(folder, kind) else 0), tried


def _happen(
  life: Life, kind: Kind, rng: random.Random, patience: float
) -> None:
  which = rng.randrange(kind.processes)
  if kind.fault == "stop":
    pid = life.processes[which].pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    life.end(patience, stopped=True)  # all of them, saved
  elif kind.fault == "kill one":
    life.processes[which].kill()
    life.fail(patience)
  else:
    life.kill(which, rng.uniform(0, 0.02))


def _same(folder: pathlib.Path, kind: Kind) -> bool:
  """Whether both runs left the same weights and results."""
  exact = len(kind.devices) == 1
  for rank in range(kind.processes):
    name = f"weights_{rank}.safetensors"
    one, other = (folder / run / name for run in ("alone", "killed"))
    if exact and one.read_bytes() != other.read_bytes():
      return False
    if not exact and not _near(load_file(one), load_file(other)):
      return False
  lines = [
    records.read(folder / run / "results.jsonl") for run in ("alone", "killed")
  ]
  if any(len(found) != 1 for found in lines):
    return False
  (alone,), (killed,) = lines
  for record in (alone, killed):
    for name in ("steps_per_second", "first_step_seconds"):
      del record["stats"][name]
  same = ("config", "seed", "metrics", "losses", "stats", "notes")
  if exact:
    return all(alone[name] == killed[name] for name in same)
  losses = [np.array(record["losses"], float) for record in (alone, killed)]
  near = losses[0].shape == losses[1].shape and np.allclose(*losses, rtol=1e-3)
  return bool(near and alone["config"] == killed["config"])


def _near(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
  """Whether tensors are the same to rounding."""
  return one.keys() == other.keys() and all(
    np.allclose(array, other[name], rtol=1e-4, atol=1e-5)
    for name, array in one.items()
  )


def main(config: Config) -> None:
  """Prints how many faults of each kind were survived."""
  known = {kind.name: kind for kind in KINDS}
  for name in config.kinds:
    if name not in known:
      sys.exit(f"error: --kinds must be of {', '.join(known)}; got {name!r}.")
  chosen = [known[name] for name in config.kinds] or list(KINDS)
  view = rich.table.Table("kind")
  for name in ("faults", "survived", "lost"):
    view.add_column(name, justify="right")
  total = [0, 0]
  for kind in chosen:
    with tempfile.TemporaryDirectory() as folder:
      survived, tried = torture(
        pathlib.Path(folder),
        kind,
        kills=-(-config.kills // len(chosen)),
        seed=config.seed,
        patience=config.patience,
      )
    total = [total[0] + tried, total[1] + survived]
    view.add_row(kind.name, str(tried), str(survived), str(tried - survived))
    rich.print(f"{kind.name}: {survived} of {tried} survived")
  view.add_section()
  view.add_row("all", *map(str, (*total, total[0] - total[1])))
  rich.print(view)
  sys.exit(not total[0] or total[0] != total[1])


if __name__ == "__main__":
  main(command_line.parse(Config, description=__doc__))
