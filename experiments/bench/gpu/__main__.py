"""Tests and measures all that a GPU has to show, in eight minutes.

  make gpu PYTHON=python3

or ``python -m experiments.bench.gpu`` in the checkout. Installs nothing. Each
part runs in a process of its own, the most important first, and leaves a file
PART.json with its figures, the machine and the versions; a part that crashes,
hangs or takes too long leaves what it had measured, and the next one begins.
Without a GPU nothing runs.
"""

import argparse
import json
import pathlib
import signal
import sys
import tempfile
import time
from typing import Any

from experiments.bench.gpu import machine, parts
from experiments.bench.gpu.table import table
from gmixout_jax.checkpoint.files import local_path, replacing

SECONDS = 480


def _local(text: str) -> pathlib.Path:
  """A folder that is no bucket."""
  try:
    return local_path("--out", text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
  """Reads the command line."""
  parser = argparse.ArgumentParser(prog="experiments.bench.gpu")
  parser.add_argument(
    "--out",
    type=_local,
    default=pathlib.Path("runs/gpu"),
    help="where a JSON file of each part goes (default: runs/gpu)",
  )
  parser.add_argument(
    "--seconds",
    type=float,
    default=SECONDS,
    help=f"how long all may take, compiling included (default: {SECONDS})",
  )
  parser.add_argument(
    "--only-table",
    action="store_true",
    help="print the table of the files that are there, and run nothing",
  )
  # For the tests of this script: that every part runs.
  parser.add_argument(
    "--reduced-on-cpu", action="store_true", help=argparse.SUPPRESS
  )
  return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
  """Runs all parts and prints the table.

  Args:
    arguments: The command line; None for that of this process.

  Returns:
    The exit status: 0 if all was measured but what is for spare time; 1 if
    not, or there is no GPU.
  """
  end = time.monotonic()
  given = parse(arguments)
  end += given.seconds
  if given.only_table:
    print(table(read(given.out)))
    return 0
  try:
    found = machine.probe()
  except RuntimeError as error:
    print(f"No GPU: {error} Nothing was run.")
    return 1
  if found["platform"] != "gpu" and not given.reduced_on_cpu:
    count, kind = found["devices"], found["device"]
    print(f"No GPU: JAX sees {count} x {kind!r}. Nothing was run.")
    return 1
  print(f"{found['device']}, jax {found['versions']['jax']}: {given.out}")
  # A kill leaves no process behind that holds the GPU.
  before = signal.signal(
    signal.SIGTERM, lambda number, frame: sys.exit(128 + number)
  )
  try:
    records = run(given.out, end, found, given.reduced_on_cpu)
  finally:
    signal.signal(signal.SIGTERM, before)
  print(f"\n{table(records)}")
  lacking = [
    part.name
    for part in parts.PARTS
    if not part.spare and records[part.name]["error"] is not None
  ]
  if lacking:
    print(f"\nNot all was measured: see {', '.join(lacking)} in {given.out}.")
  return 1 if lacking else 0


def run(
  out: pathlib.Path, end: float, found: dict[str, Any], reduced: bool
) -> dict[str, dict[str, Any]]:
  """Runs the parts one after the other.

  Args:
    out: Where their files go; those of an earlier run are removed.
    end: When they must be done, by `time.monotonic`.
    found: The machine, as `machine.describe` has it.
    reduced: Whether to run on a CPU, to see that they run.

  Returns:
    What is in the files, by the name of the part.
  """
  out.mkdir(parents=True, exist_ok=True)
  for part in parts.PARTS:
    (out / f"{part.name}.json").unlink(missing_ok=True)
  records = {}
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    for number, part in enumerate(parts.PARTS):
      start = time.monotonic()
      later = parts.PARTS[number + 1 :]
      seconds = parts.allowance(part, later, end - start)
      result = parts.Result({}, "no time was left")
      if seconds:
        print(f"==> {part.name} (at most {seconds:.0f} s)", flush=True)
        result = parts.run(part, seconds, pathlib.Path(folder), reduced)
      record = {
        "part": part.name,
        "machine": found,
        "command": sys.argv,
        "seconds": round(time.monotonic() - start, 1),
        "figures": result.figures,
        "error": result.error,
        "output": result.output,
      }
      with replacing(out / f"{part.name}.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
      records[part.name] = record
      if result.error is not None:
        print(f"    {part.name}: {result.error}", flush=True)
  return records


def read(out: pathlib.Path) -> dict[str, dict[str, Any]]:
  """What is in the files of a run, by the name of the part."""
  paths = {part.name: out / f"{part.name}.json" for part in parts.PARTS}
  return {
    name: json.loads(path.read_text())
    for name, path in paths.items()
    if path.exists()
  }


if __name__ == "__main__":
  sys.exit(main())
