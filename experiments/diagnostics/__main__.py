"""Measures what is said about why averaging weights works.

    python -m experiments.diagnostics bvcl gmixout --values 0.5 0.8 0.9 0.95
    python -m experiments.diagnostics landscape
    python -m experiments.diagnostics bvcl gmixout --values 0.5 0.9 \
      --learning-rate 5e-4 --head-learning-rate 1e-3 --steps 160 \
      --backbone vit.safetensors --train photos --ood night=photos/night
    python -m experiments.diagnostics landscape --backbone vit.safetensors \
      --data pacs --root PACS --source cartoon \
      --set full_finetuning.learning_rate=1e-4 \
      gmixout.learning_rate=5e-4 gmixout.head_learning_rate=1e-3
    python -m experiments.report runs/diagnostics.jsonl

bvcl measures bias, variance, covariance and locality against a setting of the
method; landscape measures accuracy on lines and a plane of weights. The task is
named as for `experiments.train`; by default it is the demo's, scanned digits
and eight shifts. Both append lines to a file, from which the report draws the
pictures; a setting that bvcl finds in the file is not run again.
"""

import sys
from typing import Annotated

from tyro.conf import subcommand

from experiments import command_line
from experiments.command_line import WRONG_INPUT
from experiments.diagnostics import between_weights, by_setting
from experiments.run_options import one_each

Config = by_setting.Config | between_weights.Config


def parse(arguments: list[str] | None = None) -> Config:
  """Reads the command line.

  Args:
    arguments: By default those of this process.
  """
  return command_line.parse(
    Annotated[by_setting.Config, subcommand("bvcl")]
    | Annotated[between_weights.Config, subcommand("landscape")],
    args=one_each(sys.argv[1:] if arguments is None else arguments),
    prog="python -m experiments.diagnostics",
    description=__doc__,
  )


def main(arguments: list[str] | None = None) -> int:
  """Reads the command line; returns the exit status."""
  config = parse(arguments)
  try:
    if isinstance(config, by_setting.Config):
      by_setting.bvcl(config)
    else:
      between_weights.weights(config)
  except WRONG_INPUT as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
