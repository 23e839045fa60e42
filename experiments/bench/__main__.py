"""Runs one benchmark: ``python -m experiments.bench NAME --json FILE``."""

import tyro

from experiments import command_line
from experiments.bench import (
  comms,
  flops,
  images,
  input,
  kernels,
  memory,
  scale,
  step,
  top_blocks,
  update,
)
from experiments.bench import compile as compiling

BENCHES = {
  "update": update.run,
  "memory": memory.run,
  "flops": flops.run,
  "top_blocks": top_blocks.run,
  "step": step.run,
  "kernels": kernels.run,
  "images": images.run,
  "input": input.run,
  "comms": comms.run,
  "compile": compiling.run,
  "scale": scale.run,
}


def main() -> None:
  """Reads the benchmark's name and options from the command line."""
  tyro.extras.subcommand_cli_from_dict(
    {name: command_line.checked(run) for name, run in BENCHES.items()},
    prog="experiments.bench",
  )


if __name__ == "__main__":
  main()
