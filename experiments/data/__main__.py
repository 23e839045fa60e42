"""Checks data sets: ``python -m experiments.data check PATH --as NAME``."""

import sys

import tyro

from experiments.data.check import check


def main(arguments: list[str] | None = None) -> int:
  """Reads the command line; returns the exit status."""
  return tyro.extras.subcommand_cli_from_dict(
    {"check": check},
    args=arguments,
    prog="python -m experiments.data",
  )


if __name__ == "__main__":
  sys.exit(main())
