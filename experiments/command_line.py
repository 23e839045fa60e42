"""What all command lines have in common: local paths, errors of one line."""

import contextlib
import dataclasses
import functools
import inspect
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tyro

from gmixout_jax.checkpoint.files import local_path

WRONG_INPUT = (FloatingPointError, OSError, ImportError, TypeError, ValueError)
"""What is raised where something is wrong with what a user handed in."""


SEVERAL = (
  *("--set", "--seeds", "--cases", "--classes", "--templates", "--values"),
  *("--kinds", "--references"),
)
"""Flags of several values, but those that are given anew for each."""


def parse(kind: Any, **how: Any) -> Any:
  """Reads a command line, see `tyro.cli`; all of its paths are local.

  Args:
    kind: The dataclass of flags.
    **how: For `tyro.cli`.
  """
  refuse_repeated(how.get("args"))
  found = tyro.cli(kind, **how)
  check_paths(found)
  return found


def refuse_repeated(arguments: Sequence[str] | None) -> None:
  """Refuses a flag of several values that is given twice.

  The first would be lost; of one value, the last is meant.

  Args:
    arguments: By default those of this process.

  Raises:
    SystemExit: If one is; it is named.
  """
  given = sys.argv[1:] if arguments is None else arguments
  flags = [word.split("=")[0] for word in given]
  for flag in SEVERAL:
    if flags.count(flag) > 1:
      sys.exit(f"error: {flag} is given twice; give all its values after one.")


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


def checked[**P, T](function: Callable[P, T]) -> Callable[P, T]:
  """A function for a command line: its paths are local, its errors one line.

  Args:
    function: Of flags, for `tyro.cli` and its like.
  """

  @functools.wraps(function)
  def call(*args: P.args, **kwargs: P.kwargs) -> T:
    given = inspect.signature(function).bind(*args, **kwargs).arguments
    for name, value in given.items():
      check_paths(value, f"--{name.replace('_', '-')}")
    with typed_errors():
      return function(*args, **kwargs)

  return call


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
