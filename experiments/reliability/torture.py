"""Kills a small run at random instants, and compares how it ends.

  python -m experiments.reliability.torture --kills 20
  make torture

The run is killed by SIGKILL, started again, killed again, ..., while it trains,
while it saves and while it does either in the background; then it is left to
end. Its weights must be those of a run left alone, bit for bit, and its line of
results the same but for the time. All of it once in one process, and once in
two under `jax.distributed`, of which one dies first.
"""

import dataclasses
import pathlib
import random
import sys
import tempfile
import time

import rich
import rich.progress
import tyro

from experiments.reliability.small_run import Life
from experiments.reporting import records


@dataclasses.dataclass(frozen=True)
class Config:
  """What to try.

  Attributes:
    kills: How often the run of each kind is killed.
    processes: The kinds: of how many processes a run is.
    seed: Of the instants.
    patience: Seconds that a run may take to go on before it counts as stuck.
  """

  kills: int = 20
  processes: tuple[int, ...] = (1, 2)
  seed: int = 0
  patience: float = 300.0


def torture(
  folder: pathlib.Path,
  *,
  kills: int,
  processes: int,
  seed: int = 0,
  patience: float = 300.0,
  steps: int | None = None,
) -> tuple[int, int]:
  """Kills a run again and again.

  Args:
    folder: An empty one.
    kills: How often, at most: a run that has ended cannot be killed.
    processes: Of the run.
    seed: Of the instants.
    patience: See `Config`.
    steps: Of the run; by default enough for all kills.

  Returns:
    How many kills were survived, and how many were tried: all, or none if the
    run ended differently. One that does not go on raises.
  """
  rng = random.Random(seed)
  steps = 5 * kills + 10 if steps is None else steps
  start = lambda name: Life.start(
    folder / name, processes=processes, cache=folder / "cache", steps=steps
  )
  start("alone").end(patience)
  tried = 0
  for _ in rich.progress.track(
    range(kills), f"Killing {processes} process(es)", transient=True
  ):
    life = start("killed")
    before = life.steps()
    target = before + rng.randint(1, 6)
    until = time.monotonic() + patience
    while life.alive() and life.steps() < target and time.monotonic() < until:
      time.sleep(0.002)
    if not life.alive() or time.monotonic() >= until:
      life.end(0.0 if life.alive() else patience)  # says why, if it failed
      break  # all steps are taken
    time.sleep(rng.uniform(0, 0.06))
    life.kill(rng.randrange(processes), rng.uniform(0, 0.02))
    tried += 1
  start("killed").end(patience)
  return (tried if _same(folder, processes) else 0), tried


def _same(folder: pathlib.Path, processes: int) -> bool:
  """Whether both runs left the same weights and results."""
  for rank in range(processes):
    name = f"weights_{rank}.safetensors"
    left, right = (
      (folder / run / name).read_bytes() for run in ("alone", "killed")
    )
    if left != right:
      return False
  (alone,), (killed,) = (
    records.read(folder / run / "results.jsonl") for run in ("alone", "killed")
  )
  timed = ("steps_per_second", "first_step_seconds")
  for record in (alone, killed):
    for name in timed:
      del record["stats"][name]
  same = ("config", "seed", "metrics", "losses", "stats", "notes")
  return all(alone[name] == killed[name] for name in same)


def main(config: Config) -> None:
  """Prints the kills survived out of the kills tried."""
  good = True
  for processes in config.processes:
    with tempfile.TemporaryDirectory() as folder:
      survived, tried = torture(
        pathlib.Path(folder),
        kills=config.kills,
        processes=processes,
        seed=config.seed,
        patience=config.patience,
      )
    rich.print(
      f"{survived} of {tried} kills survived, in {processes} process(es)"
    )
    good &= survived == tried > 0
  sys.exit(not good)


if __name__ == "__main__":
  main(tyro.cli(Config, description=__doc__))
