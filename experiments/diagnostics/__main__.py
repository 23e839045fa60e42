"""Runs a diagnostic on the demo's task: scanned digits and eight shifts.

    python -m experiments.diagnostics bvcl gmixout --values 0.5 0.8 0.9 0.95
    python -m experiments.diagnostics landscape
    python -m experiments.report runs/diagnostics.jsonl

bvcl measures bias, variance, covariance and locality against a setting of the
method; landscape measures accuracy on lines and a plane of weights. Both append
lines to a file, from which the report draws the pictures; a setting that the
file has already is not run again.
"""

import sys

import tyro

from experiments import command_line
from experiments.command_line import WRONG_INPUT
from experiments.diagnostics.between_weights import weights
from experiments.diagnostics.by_setting import bvcl


def main(arguments: list[str] | None = None) -> int:
  """Reads the command line; returns the exit status."""
  command_line.refuse_repeated(arguments)
  try:
    tyro.extras.subcommand_cli_from_dict(
      {"bvcl": bvcl, "landscape": weights},
      args=arguments,
      prog="python -m experiments.diagnostics",
      description=__doc__,
    )
  except WRONG_INPUT as error:
    print(f"error: {error}")
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
