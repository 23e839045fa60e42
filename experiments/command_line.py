"""What all command lines have in common: local paths, errors of one line."""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import tyro

from gmixout_jax.checkpoint.files import local_path

WRONG_INPUT = (FloatingPointError, OSError, ImportError, TypeError, ValueError)
"""What is raised where something is wrong with what a user handed in."""


def parse(kind: Any, **how: Any) -> Any:
  """Reads a command line, see `tyro.cli`; all of its paths are local.

  Args:
    kind: The dataclass of flags.
    **how: For `tyro.cli`.
  """
  found = tyro.cli(kind, **how)
  check_paths(found)
  return found


def check_paths(config: Any, flag: str = "") -> None:
  """Whether all paths of a configuration lie on a local or a mounted disk.

  Args:
    config: A dataclass of flags, with others in it, or a value of one.
    flag: Of the value.

  Raises:
    SystemExit: If one is the address of a bucket; the flag is named.
  """
  if dataclasses.is_dataclass(config):
    for field in dataclasses.fields(config):
      name = field.name.replace("_", "-")
      check_paths(getattr(config, field.name), f"--{name}")
  elif isinstance(config, list | tuple):
    for value in config:
      check_paths(value, flag)
  elif isinstance(config, pathlib.PurePath):
    with typed_errors():
      local_path(flag, config)


@contextlib.contextmanager
def typed_errors() -> Iterator[None]:
  """Ends with one line of error if a user's input is wrong.

  Raises:
    SystemExit: Then; the message is whole, whatever it has of markup.
  """
  try:
    yield
  except WRONG_INPUT as error:
    sys.exit(f"error: {error}")
